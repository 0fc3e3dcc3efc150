"""Train `export/checkpoints/demo-scenes`, a small VisionEncoderDecoderModel, on drawn scenes.

    python export/training/train_captioner.py --output DIR

The recipe (all defaults): scenes drawn by `scenes.py` and their mirror images, a ViT encoder of
four layers and a GPT-2 decoder of two, a vocabulary of the captions' words, position embeddings
that start as sines and cosines (from small random ones it had not learned within 1,700 steps to
tell where anything is), Muon for the matrices and AdamW for the rest, and a warm-up, constant,
decay schedule. No attention is supervised.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    VisionEncoderDecoderModel,
    ViTConfig,
    ViTImageProcessor,
    ViTModel,
)

import scenes
from optimizers import build_optimizers, schedule, set_learning_rate

BOS, EOS, PAD, UNK = "<s>", "</s>", "<pad>", "<unk>"
IMAGE_SIDE = 64
PATCH = 8
MAX_POSITIONS = 48
DEVELOPMENT_SEED = 5_000_000


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer whose pieces are the words of every caption."""
    phrases = [*scenes.COLOURS, *scenes.SHAPES, *scenes.SIZES, *scenes.MIRRORED]
    phrases += [place for row in scenes.PLACES for place in row]
    words = dict.fromkeys(word for phrase in ("a which is", *phrases) for word in phrase.split())
    pieces = [BOS, EOS, PAD, UNK, ",", *(f"▁{word}" for word in words)]
    tokenizer = Tokenizer(models.WordLevel({piece: index for index, piece in enumerate(pieces)}, unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(), pre_tokenizers.Split(",", "isolated")]
    )
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {EOS}", special_tokens=[(EOS, tokenizer.token_to_id(EOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        unk_token=UNK,
        model_max_length=MAX_POSITIONS,
    )


def build_model(tokenizer: PreTrainedTokenizerFast, width: int) -> VisionEncoderDecoderModel:
    """Return an untrained captioner."""
    encoder = ViTConfig(
        image_size=IMAGE_SIDE,
        patch_size=PATCH,
        hidden_size=width,
        num_hidden_layers=4,
        num_attention_heads=width // 40,
        intermediate_size=4 * width,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    decoder = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=MAX_POSITIONS,
        n_embd=width,
        n_layer=2,
        n_head=width // 40,
        add_cross_attention=True,
        is_decoder=True,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    vit = ViTModel(encoder, add_pooling_layer=False)
    with torch.no_grad():
        vit.embeddings.position_embeddings[0, 1:] = 0.5 * grid_positions(IMAGE_SIDE // PATCH, width)
    model = VisionEncoderDecoderModel(encoder=vit, decoder=GPT2LMHeadModel(decoder))
    model.config.decoder_start_token_id = tokenizer.bos_token_id
    model.config.eos_token_id = tokenizer.eos_token_id
    model.config.pad_token_id = tokenizer.pad_token_id
    model.generation_config = GenerationConfig(
        decoder_start_token_id=tokenizer.bos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        max_length=MAX_POSITIONS,
    )
    return model


def grid_positions(side: int, width: int) -> torch.Tensor:
    """Return sines and cosines of each patch's row and column [side * side, width].

    Vaswani et al. 2017 (arXiv:1706.03762, section 3.5), half of the width for each direction.
    """
    frequencies = 10_000 ** (-torch.arange(width // 4) / (width // 4))
    angles = torch.arange(side)[:, None] * frequencies
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)
    rows, columns = waves.repeat_interleave(side, dim=0), waves.repeat(side, 1)
    return torch.cat([rows, columns], dim=1)


def build_processor() -> ViTImageProcessor:
    """Return what turns a picture into pixel values from -1 to 1."""
    return ViTImageProcessor(
        size={"height": IMAGE_SIDE, "width": IMAGE_SIDE},
        resample=Image.Resampling.BICUBIC,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )


def shrink(scene: scenes.Scene) -> scenes.Pixels:
    """Return the scene's pixels as the processor resizes them."""
    return np.asarray(scene.image.resize((IMAGE_SIDE, IMAGE_SIDE), Image.Resampling.BICUBIC))


def draw_some(seeds: Sequence[int]) -> tuple[scenes.Pixels, list[tuple[str, str]]]:
    """Return the shrunk pictures of `seeds` [n, side, side, 3], and their captions, as they are and mirrored."""
    drawn = [scenes.draw(seed) for seed in seeds]
    return np.stack([shrink(one) for one in drawn]), [(one.caption, one.mirrored().caption) for one in drawn]


def draw_all(count: int, workers: int) -> tuple[scenes.Pixels, list[tuple[str, str]]]:
    """Draw the training scenes, the seeds from 0 on, in several processes."""
    pixels = np.empty((count, IMAGE_SIDE, IMAGE_SIDE, 3), np.uint8)
    captions: list[tuple[str, str]] = []
    parts = [range(start, min(start + 1000, count)) for start in range(0, count, 1000)]
    with ProcessPoolExecutor(workers) as pool:
        for part, (drawn, described) in zip(parts, pool.map(draw_some, parts), strict=True):
            pixels[part.start : part.stop] = drawn
            captions += described
            print(f"drawn {len(captions)}/{count}", end="\r", flush=True)
    return pixels, captions


def pixel_values(pixels: npt.NDArray[np.uint8]) -> torch.Tensor:
    """Return float32 [n, 3, side, side] from -1 to 1."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def loss_of(model: VisionEncoderDecoderModel, pixels: npt.NDArray[np.uint8], labels: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy of the captions `labels` [n, longest], in nats per token."""
    pad_id = model.config.pad_token_id
    labels = labels[:, : int((labels != pad_id).sum(1).max())]
    start = torch.full((len(labels), 1), model.config.decoder_start_token_id)
    logits = model(
        pixel_values=pixel_values(pixels), decoder_input_ids=torch.cat([start, labels[:, :-1]], dim=1)
    ).logits
    real = labels != pad_id
    return torch.nn.functional.cross_entropy(logits[real], labels[real])


@torch.inference_mode()
def exact_share(model: VisionEncoderDecoderModel, tokenizer: PreTrainedTokenizerFast, count: int) -> float:
    """Return the share of development scenes whose caption is, word for word, the right one."""
    drawn = [scenes.draw(DEVELOPMENT_SEED + index) for index in range(count)]
    values = pixel_values(np.stack([shrink(scene) for scene in drawn]))
    texts = tokenizer.batch_decode(model.generate(pixel_values=values, do_sample=False), skip_special_tokens=True)
    return float(np.mean([text == scene.caption for text, scene in zip(texts, drawn, strict=True)]))


def main() -> None:
    """Train, and write the checkpoint as it goes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="where the checkpoint is written")
    parser.add_argument("--scenes", type=int, default=100_000, help="training scenes (default: 100,000)")
    parser.add_argument("--steps", type=int, default=4000, help="batches (default: 4,000)")
    parser.add_argument("--batch", type=int, default=64, help="scenes in a batch (default: 64)")
    parser.add_argument("--decay-share", type=float, default=0.4, help="share of the steps that decay")
    parser.add_argument("--learning-rate", type=float, default=1.5e-3, help="peak, AdamW")
    parser.add_argument("--matrix-learning-rate", type=float, default=4e-3, help="peak, Muon")
    parser.add_argument("--width", type=int, default=160, help="model width (default: 160)")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--workers", type=int, default=2, help="processes that draw")
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    tokenizer = build_tokenizer()
    model = build_model(tokenizer, options.width)
    for part in (tokenizer, build_processor()):
        part.save_pretrained(options.output)
    model.save_pretrained(options.output)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(tokenizer)} words", flush=True)

    pixels, captions = draw_all(options.scenes, options.workers)
    sides = [
        torch.tensor(
            tokenizer([pair[side] for pair in captions], padding="max_length", max_length=MAX_POSITIONS)["input_ids"]
        )
        for side in (0, 1)
    ]
    optimizers = build_optimizers(model, options.matrix_learning_rate, options.learning_rate)
    started, total = time.monotonic(), 0.0
    order = rng.permutation(options.scenes)
    for step in range(options.steps):
        model.train()
        set_learning_rate(optimizers, schedule(step, options.steps, options.decay_share))
        at = step * options.batch % (options.scenes - options.batch + 1)
        if at < options.batch:
            order = rng.permutation(options.scenes)
        chosen, side = order[at : at + options.batch], int(rng.integers(2))
        batch = pixels[chosen, :, ::-1] if side else pixels[chosen]
        loss = loss_of(model, np.ascontiguousarray(batch), sides[side][chosen])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        total += loss.item()
        if (step + 1) % 100 == 0:
            minutes = (time.monotonic() - started) / 60
            print(f"step {step + 1}/{options.steps}  loss {total / 100:.4f}  {minutes:.1f} min", flush=True)
            total = 0.0
        if (step + 1) % 500 == 0:
            model.eval()
            print(f"word for word right: {100 * exact_share(model, tokenizer, 200):.1f} %", flush=True)
            model.save_pretrained(options.output)
    model.eval().half().save_pretrained(options.output)
    recipe = {name: value for name, value in vars(options).items() if name not in ("output", "workers")}
    (options.output / "recipe.json").write_text(json.dumps(recipe, indent=2) + "\n")


if __name__ == "__main__":
    main()

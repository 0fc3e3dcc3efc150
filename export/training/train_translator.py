"""Train `export/checkpoints/demo-en-fr`, a small English-French MarianMT model, on Tatoeba.

    python export/training/train_translator.py --data fra-eng.zip --output DIR

The recipe (all defaults): a shared unigram vocabulary, an encoder of three and a decoder of two
layers, Muon for the matrices and AdamW for the rest, label smoothing, batches of similar lengths
under a budget of padded tokens, and a warm-up, constant, decay schedule (Hägele et al. 2024,
arXiv:2405.18392), whose end may be moved while the training runs: `--resume` continues from the
last epoch with new arguments.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import UnigramTrainer
from transformers import GenerationConfig, MarianConfig, MarianMTModel, PreTrainedTokenizerFast

import tatoeba
from optimizers import build_optimizers, schedule, set_learning_rate

EOS, UNK, PAD = "</s>", "<unk>", "<pad>"
MAX_POSITIONS = 256


def train_tokenizer(sentences: Sequence[str], pieces: int) -> PreTrainedTokenizerFast:
    """Return a unigram tokenizer (Kudo 2018, arXiv:1804.10959) shared by both languages."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(),
            pre_tokenizers.Split(Regex(r'[.,!?;:"«»()…]'), "isolated"),
            pre_tokenizers.Digits(individual_digits=True),
        ]
    )
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.train_from_iterator(
        sentences,
        UnigramTrainer(vocab_size=pieces, special_tokens=[EOS, UNK, PAD], unk_token=UNK, show_progress=False),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {EOS}", special_tokens=[(EOS, tokenizer.token_to_id(EOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=EOS,
        unk_token=UNK,
        pad_token=PAD,
        model_max_length=MAX_POSITIONS,
    )


def build_model(tokenizer: PreTrainedTokenizerFast, width: int) -> MarianMTModel:
    """Return an untrained model whose start token is the padding token, as in Marian."""
    config = MarianConfig(
        vocab_size=len(tokenizer),
        d_model=width,
        encoder_layers=3,
        decoder_layers=2,
        encoder_attention_heads=width // 40,
        decoder_attention_heads=width // 40,
        encoder_ffn_dim=4 * width,
        decoder_ffn_dim=4 * width,
        activation_function="swish",
        max_position_embeddings=MAX_POSITIONS,
        scale_embedding=True,
        dropout=0.0,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        forced_eos_token_id=None,
    )
    model = MarianMTModel(config)
    model.generation_config = GenerationConfig(
        decoder_start_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bad_words_ids=[[tokenizer.pad_token_id]],
        max_length=MAX_POSITIONS,
    )
    return model


def batches(
    pairs: Sequence[tuple[list[int], list[int]]], max_batch_tokens: int, rng: random.Random
) -> Iterator[list[tuple[list[int], list[int]]]]:
    """Yield batches of similar lengths, at most `max_batch_tokens` padded target tokens each."""
    ordered = sorted(pairs, key=lambda p: (len(p[1]) + rng.random(), len(p[0])))
    groups: list[list[tuple[list[int], list[int]]]] = [[]]
    longest = 0
    for pair in ordered:
        longest = max(longest, len(pair[0]), len(pair[1]))
        if groups[-1] and longest * (len(groups[-1]) + 1) > max_batch_tokens:
            groups.append([])
            longest = max(len(pair[0]), len(pair[1]))
        groups[-1].append(pair)
    rng.shuffle(groups)
    yield from groups


def pad(rows: Sequence[list[int]], value: int) -> torch.Tensor:
    """Return int64 [rows, longest], padded on the right with `value`."""
    longest = max(map(len, rows))
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows])


def loss_of(model: MarianMTModel, batch: Sequence[tuple[list[int], list[int]]]) -> torch.Tensor:
    """Return the mean label-smoothed cross-entropy of `batch`, in nats per target token."""
    pad_id = model.config.pad_token_id
    source, target = pad([s for s, _ in batch], pad_id), pad([t for _, t in batch], -100)
    shifted = torch.cat([torch.full((len(batch), 1), pad_id), target[:, :-1].clamp(min=0)], dim=1)
    hidden = model.model(
        input_ids=source, attention_mask=(source != pad_id).long(), decoder_input_ids=shifted
    ).last_hidden_state
    real = target != -100
    logits = model.lm_head(hidden[real])
    smoothing = 0.1 if model.training else 0.0
    return torch.nn.functional.cross_entropy(logits, target[real], label_smoothing=smoothing)


def main() -> None:
    """Train, and write the checkpoint after every epoch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="fra-eng.zip of manythings.org/anki")
    parser.add_argument("--output", type=Path, required=True, help="where the checkpoint is written")
    parser.add_argument("--epochs", type=float, default=7, help="passes over the data (default: 7)")
    parser.add_argument("--decay-share", type=float, default=0.42, help="share of the steps that decay")
    parser.add_argument("--max-batch-tokens", type=int, default=3000, help="padded target tokens")
    parser.add_argument("--learning-rate", type=float, default=1.8e-3, help="peak, AdamW")
    parser.add_argument("--matrix-learning-rate", type=float, default=4e-3, help="peak, Muon")
    parser.add_argument("--width", type=int, default=160, help="model width (default: 160)")
    parser.add_argument("--pieces", type=int, default=4000, help="vocabulary size")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--resume", action="store_true", help="continue from the last epoch in --output")
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    rng = random.Random(options.seed)
    corpus = tatoeba.load(options.data)
    options.output.mkdir(parents=True, exist_ok=True)
    state_file = options.output / "training_state.pt"

    if options.resume:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(options.output)
    else:
        tokenizer = train_tokenizer([s for pair in corpus.train for s in pair], options.pieces)
        tokenizer.save_pretrained(options.output)
    model = build_model(tokenizer, options.width)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(tokenizer)} pieces", flush=True)
    optimizers = build_optimizers(model, options.matrix_learning_rate, options.learning_rate)

    def encode(texts: Sequence[str]) -> list[list[int]]:
        return tokenizer(list(texts), truncation=True, max_length=MAX_POSITIONS)["input_ids"]

    train = list(zip(encode([s for s, _ in corpus.train]), encode([t for _, t in corpus.train]), strict=True))
    dev = list(zip(encode([e.source for e in corpus.dev]), encode([e.references[0] for e in corpus.dev]), strict=True))

    step = epoch = 0
    if options.resume:
        state = torch.load(state_file, weights_only=False)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        step, epoch = state["step"], state["epoch"]
        rng.setstate(state["rng"])
    steps = int(len(list(batches(train, options.max_batch_tokens, random.Random(0)))) * options.epochs)
    started = time.monotonic()
    while step < steps:
        model.train()
        total = 0.0
        for seen, batch in enumerate(batches(train, options.max_batch_tokens, rng), start=1):
            set_learning_rate(optimizers, schedule(step, steps, options.decay_share))
            loss = loss_of(model, batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            step += 1
            total += loss.item()
            if step % 100 == 0:
                minutes = (time.monotonic() - started) / 60
                print(f"step {step}/{steps}  loss {total / seen:.3f}  {minutes:.1f} min", flush=True)
            if step >= steps:
                break
        epoch += 1
        model.eval()
        with torch.inference_mode():
            held_out = [loss_of(model, b).item() for b in batches(dev, options.max_batch_tokens, random.Random(0))]
        print(f"epoch {epoch}: dev loss {sum(held_out) / len(held_out):.3f}", flush=True)
        torch.save(
            {
                "model": model.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in optimizers],
                "step": step,
                "epoch": epoch,
                "rng": rng.getstate(),
            },
            state_file,
        )
        model.save_pretrained(options.output)
    model.half().save_pretrained(options.output)
    recipe = {k: v for k, v in vars(options).items() if k not in ("data", "output", "resume")}
    (options.output / "recipe.json").write_text(json.dumps(recipe | {"steps": step}, indent=2) + "\n")
    state_file.unlink()


if __name__ == "__main__":
    main()

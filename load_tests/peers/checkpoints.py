"""The checkpoints that the contestants run, made so that no generation ends before its limit.

The end of the sentence gets a bias that it can't make up for. The padding token is the last of the
vocabulary and its embedding is 0, as in Marian's own checkpoints: CTranslate2 relies on both.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import GenerationConfig, MarianConfig, MarianMTModel, PreTrainedTokenizerFast

EOS, UNK, PAD = "</s>", "<unk>", "<pad>"
NEVER = -1e2
VOCABULARY_SIZE, TINY_VOCABULARY_SIZE = 58_101, 200
MAX_POSITIONS = 512
SEED = 58_101


def save_marian_base(directory: Path) -> None:
    """Write a checkpoint of Marian's base shape with random weights."""
    save_endless(*random_marian(), directory)


def random_marian(*, tiny: bool = False) -> tuple[MarianMTModel, PreTrainedTokenizerFast]:
    """Return a model of random weights: Marian's base shape (6+6 layers of 512, 8 heads, 2,048), or a tiny one."""
    tokenizer = dummy_tokenizer(TINY_VOCABULARY_SIZE if tiny else VOCABULARY_SIZE)
    width, layers, heads = (32, 2, 4) if tiny else (512, 6, 8)
    config = MarianConfig(
        vocab_size=len(tokenizer),
        d_model=width,
        encoder_layers=layers,
        decoder_layers=layers,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=4 * width,
        decoder_ffn_dim=4 * width,
        activation_function="swish",
        max_position_embeddings=MAX_POSITIONS,
        scale_embedding=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
        forced_eos_token_id=None,
    )
    torch.manual_seed(SEED)
    return MarianMTModel(config), tokenizer


def save_endless_copy(checkpoint: Path, directory: Path) -> None:
    """Write a copy of a Marian checkpoint, in fp32, whose padding token is last and whose sentences don't end."""
    model = MarianMTModel.from_pretrained(checkpoint, dtype=torch.float32)
    last, pad = model.config.vocab_size - 1, model.config.pad_token_id
    assert pad is not None
    scratch = directory.with_name(f"{directory.name}-tokenizer")
    shutil.copytree(checkpoint, scratch, ignore=shutil.ignore_patterns("model.safetensors"), dirs_exist_ok=True)
    _exchange_pieces(scratch / "tokenizer.json", pad, last)
    order = torch.arange(last + 1)
    order[pad], order[last] = last, pad
    with torch.no_grad():
        model.model.shared.weight.copy_(model.model.shared.weight[order])
        model.final_logits_bias.copy_(model.final_logits_bias[:, order])
    model.config.pad_token_id = model.config.decoder_start_token_id = last
    model.model.shared.padding_idx = last
    save_endless(model, PreTrainedTokenizerFast.from_pretrained(scratch), directory)
    shutil.rmtree(scratch)


def save_endless(model: MarianMTModel, tokenizer: PreTrainedTokenizerFast, directory: Path) -> None:
    """Write a model whose padding token is the last, so that no sentence ends."""
    config = model.config
    with torch.no_grad():
        model.model.shared.weight[config.pad_token_id] = 0
        model.final_logits_bias[:, config.eos_token_id] = NEVER
    model.generation_config = GenerationConfig(
        decoder_start_token_id=config.decoder_start_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
        bad_words_ids=[[config.pad_token_id]],
        max_length=config.max_position_embeddings,
    )
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def dummy_tokenizer(size: int) -> PreTrainedTokenizerFast:
    """Return a unigram tokenizer of `size` pieces, each a word that encodes to itself; the last one is for padding."""
    words = [(f"▁word{number}", -10.0) for number in range(size - 3)]
    tokenizer = Tokenizer(models.Unigram([(EOS, 0.0), (UNK, 0.0), *words, (PAD, 0.0)], unk_id=1))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens([EOS, UNK, PAD])
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {EOS}", special_tokens=[(EOS, 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=EOS, unk_token=UNK, pad_token=PAD, model_max_length=MAX_POSITIONS
    )


def _exchange_pieces(file: Path, first: int, second: int) -> None:
    """Exchange the ids of two pieces of a unigram tokenizer."""
    tokenizer = json.loads(file.read_text())
    pieces = tokenizer["model"]["vocab"]
    pieces[first], pieces[second] = pieces[second], pieces[first]
    exchanged = {first: second, second: first}
    for token in tokenizer["added_tokens"]:
        token["id"] = exchanged.get(token["id"], token["id"])
    file.write_text(json.dumps(tokenizer, ensure_ascii=False))

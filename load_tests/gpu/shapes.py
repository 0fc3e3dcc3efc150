"""Checkpoints of real shapes and random weights, or tiny ones for a rehearsal.

Queries and keys are drawn wide, so that attention peaks: near-uniform attention would hide errors.
"""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GenerationConfig,
    MarianConfig,
    MarianMTModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

EOS, UNK, PAD = "</s>", "<unk>", "<pad>"
SEED = 7
WIDER = 4.0
"""How much wider than the initialisation queries and keys are drawn."""
NEVER = -1e2


def save_marian(directory: Path, *, tiny: bool) -> None:
    """Write a translator of Marian's base shape (6 + 6 layers of 512) whose sentences don't end."""
    tokenizer = _tokenizer(200 if tiny else 58_101)
    width, layers, heads = (32, 2, 4) if tiny else (512, 6, 8)
    ends = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
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
        max_position_embeddings=512,
        scale_embedding=True,
        decoder_start_token_id=tokenizer.pad_token_id,
        forced_eos_token_id=None,
        **ends,
    )
    torch.manual_seed(SEED)
    model = MarianMTModel(config)
    model.final_logits_bias[:, tokenizer.eos_token_id] = NEVER
    model.generation_config = GenerationConfig(
        decoder_start_token_id=tokenizer.pad_token_id, bad_words_ids=[[tokenizer.pad_token_id]], max_length=512, **ends
    )
    _save(model, directory)
    tokenizer.save_pretrained(directory)


def save_bert(directory: Path, *, tiny: bool) -> None:
    """Write a classifier of BERT's base shape (12 layers of 768) with 16 classes."""
    tokenizer = _tokenizer(200 if tiny else 30_522)
    torch.manual_seed(SEED)
    config = BertConfig(
        vocab_size=len(tokenizer), num_labels=16, pad_token_id=tokenizer.pad_token_id, **_sizes(tiny=tiny)
    )
    _save(BertForSequenceClassification(config), directory)
    tokenizer.save_pretrained(directory)


def save_vit(directory: Path, *, tiny: bool) -> None:
    """Write a classifier of ViT's base shape (12 layers of 768, 197 positions) with 16 classes."""
    side, patch = (16, 4) if tiny else (224, 16)
    torch.manual_seed(SEED)
    config = ViTConfig(image_size=side, patch_size=patch, num_labels=16, **_sizes(tiny=tiny))
    _save(ViTForImageClassification(config), directory)
    ViTImageProcessor(size={"height": side, "width": side}).save_pretrained(directory)


def _sizes(*, tiny: bool) -> dict[str, int]:
    if not tiny:
        return {}
    return {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


def _save(model: PreTrainedModel, directory: Path) -> None:
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2 and any(part in name for part in ("query", "key", "q_proj", "k_proj")):
                weight.mul_(WIDER)
    model.save_pretrained(directory)


def _tokenizer(size: int) -> PreTrainedTokenizerFast:
    """Return a unigram tokenizer of `size` pieces, each a word that encodes to itself; the last one is for padding."""
    words = [(f"▁word{number}", -10.0) for number in range(size - 3)]
    tokenizer = Tokenizer(models.Unigram([(EOS, 0.0), (UNK, 0.0), *words, (PAD, 0.0)], unk_id=1))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens([EOS, UNK, PAD])
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {EOS}", special_tokens=[(EOS, 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=EOS, unk_token=UNK, pad_token=PAD, model_max_length=512
    )

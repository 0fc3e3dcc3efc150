"""Checkpoints of real shapes and random weights, or tiny ones for a rehearsal.

Queries and keys are drawn wide, so that attention peaks: near-uniform attention would hide errors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedModel,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

from load_tests.peers import checkpoints

SEED = 7
WIDER = 4.0
"""How much wider than the initialisation queries and keys are drawn."""


def save_marian(directory: Path, *, tiny: bool) -> None:
    """Write a translator of Marian's base shape (6 + 6 layers of 512) whose sentences don't end."""
    model, tokenizer = checkpoints.random_marian(tiny=tiny)
    _widen(model)
    checkpoints.save_endless(model, tokenizer, directory)


def save_bert(directory: Path, *, tiny: bool) -> None:
    """Write a classifier of BERT's base shape (12 layers of 768) with 16 classes."""
    tokenizer = checkpoints.dummy_tokenizer(200 if tiny else 30_522)
    torch.manual_seed(SEED)
    config = BertConfig(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **_shape(tiny=tiny))
    model = BertForSequenceClassification(config)
    _widen(model)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def save_vit(directory: Path, *, tiny: bool) -> None:
    """Write a classifier of ViT's base shape (12 layers of 768, 197 positions) with 16 classes."""
    side, patch = (16, 4) if tiny else (224, 16)
    torch.manual_seed(SEED)
    config = ViTConfig(image_size=side, patch_size=patch, **_shape(tiny=tiny))
    model = ViTForImageClassification(config)
    _widen(model)
    model.save_pretrained(directory)
    ViTImageProcessor(size={"height": side, "width": side}).save_pretrained(directory)


def _shape(*, tiny: bool) -> dict[str, Any]:
    """Return what a classifier's configuration says otherwise than by default."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    return {"num_labels": 16} | (sizes if tiny else {})


def _widen(model: PreTrainedModel) -> None:
    """Let queries and keys be far from one another."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2 and any(part in name for part in ("query", "key", "q_proj", "k_proj")):
                weight.mul_(WIDER)

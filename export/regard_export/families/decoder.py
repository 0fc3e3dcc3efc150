"""The sizes of a decoder, found by decoding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, EncoderDecoderCache, LinearAttentionLayer

from regard_export.errors import CheckpointError
from regard_export.families.base import Family


@dataclass(frozen=True)
class StateSize:
    """A layer's keys, or values: [rows, heads, positions, size]."""

    heads: int
    size: int


@dataclass(frozen=True)
class Decoder:
    """The sizes of a decoder: its state layer by layer, the width of what it reads, the words that it knows.

    `cross` is empty and `encoder_width` 0 for a model that has only a decoder.
    """

    own: tuple[StateSize, ...]
    cross: tuple[StateSize, ...]
    encoder_width: int
    vocabulary_size: int


def measure_decoder(model: PreTrainedModel, family: Family, source: Mapping[str, torch.Tensor]) -> Decoder:
    """Find the sizes of a decoder by decoding one token: no config is asked."""
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    with torch.no_grad():
        rows = next(iter(source.values())).shape[0]
        output = family.decode(model, torch.zeros(rows, 1, dtype=torch.int64), source=source, cache=cache)
    hidden, logits = output.encoder_last_hidden_state, output.logits
    assert hidden is not None and logits is not None
    own, cross = (
        tuple(_state_size(layer) for layer in half.layers)
        for half in (cache.self_attention_cache, cache.cross_attention_cache)
    )
    return Decoder(own, cross, hidden.shape[-1], logits.shape[-1])


def measure_lone_decoder(model: PreTrainedModel, family: Family, source: Mapping[str, torch.Tensor]) -> Decoder:
    """Find the sizes of a decoder that reads its source itself. Raises `CheckpointError` if it keeps other states."""
    _require_attention(model)
    cache = DynamicCache()
    rows = next(iter(source.values())).shape[0]
    with torch.no_grad():
        family.prefill(model, source, cache)
        logits = family.complete(model, source, torch.zeros(rows, 1, dtype=torch.int64)).logits
    assert logits is not None
    return Decoder(tuple(_state_size(layer) for layer in cache.layers), (), 0, logits.shape[-1])


def _require_attention(model: PreTrainedModel) -> None:
    """Refuse layers that go on from the state of a recurrence or a convolution, as hybrid models have."""
    others = [
        number
        for number, layer in enumerate(DynamicCache(config=model.config).layers)
        if isinstance(layer, LinearAttentionLayer)
    ]
    if others:
        raise CheckpointError(
            f"{type(model).__name__} has layers without keys and values, or with another state beside them "
            f"({len(others)}, the first is {others[0]}); only layers of attention alone are taken yet"
        )


def _state_size(layer: Any) -> StateSize:
    _, heads, _, size = layer.keys.shape
    return StateSize(heads, size)

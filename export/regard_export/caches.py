"""Caches that a model is handed while it is traced, in place of Transformers' own.

They decide what a graph takes and gives: `RecordingCache` catches the cross-attention keys and
values that an encoder's graph must output, `PrefillCache` those of a decoder's self-attention;
`StepCache` makes a decoding step read its state from the graph's inputs, each row at its own
position, and so does `DecoderStepCache` for a model that has only a decoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import EncoderDecoderCache

KeyValue = tuple[torch.Tensor, torch.Tensor]


class _Half:
    """What Transformers asks of either half of an encoder-decoder cache."""

    is_compileable = False
    is_sliding = is_linear = is_dummy = ()

    def get_query_offset(self, *_: Any, **__: Any) -> int:
        return 0

    def get_mask_sizes(self, query_length: int, *_: Any, **__: Any) -> tuple[int, int]:
        return query_length, 0


class PrefillCache(_Half):
    """Remembers what each layer wrote, and answers as an empty cache does."""

    def __init__(self) -> None:
        self._written: dict[int, KeyValue] = {}

    def update(self, key: torch.Tensor, value: torch.Tensor, layer: int, *_: Any, **__: Any) -> KeyValue:
        """Keep a layer's key and value, which attention then sees."""
        self._written[layer] = (key, value)
        return key, value

    def get_seq_length(self, *_: Any) -> int:
        """Return 0: nothing was read before."""
        return 0

    @property
    def written(self) -> list[KeyValue]:
        """Key and value [R, H, S, D] of every layer, in order."""
        return [pair for _, pair in sorted(self._written.items())]


class _StepSelf(_Half):
    """Notes which layer has a new key and value; the attention function then appends them."""

    def __init__(self, row_length: torch.Tensor) -> None:
        self.row_length = row_length
        self.pending: int | None = None

    def update(self, key: torch.Tensor, value: torch.Tensor, layer: int, *_: Any, **__: Any) -> KeyValue:
        self.pending = layer
        return key, value

    def get_seq_length(self, *_: Any) -> torch.Tensor:
        """Return the position of every row [N, 1]: all position arithmetic then runs per row."""
        return self.row_length.to(torch.int64)[:, None]


@dataclass
class _Layer:
    keys: torch.Tensor
    values: torch.Tensor


class _StepCross(_Half):
    def __init__(self, cross: list[KeyValue]) -> None:
        self.layers = [_Layer(key, value) for key, value in cross]


class _TracedCache(EncoderDecoderCache):
    """An encoder-decoder cache of two halves that are not Transformers' own.

    Models tell an encoder-decoder cache by its class, hence the base; none of its code is used, so
    the attributes that it declares are typed anew.
    """

    self_attention_cache: Any
    cross_attention_cache: Any
    is_updated: dict[int, bool]
    is_sliding = is_linear = is_dummy = ()

    def get_query_offset(self, *_: Any, **__: Any) -> int:
        return 0

    def get_mask_sizes(self, query_length: int, *_: Any, **__: Any) -> tuple[int, int]:
        return query_length, 0


class RecordingCache(_TracedCache):
    """Catches the cross-attention keys and values of every decoder layer."""

    def __init__(self) -> None:
        self._recorded = PrefillCache()
        self.self_attention_cache = PrefillCache()
        self.cross_attention_cache = self._recorded
        self.is_updated = {}

    def get_seq_length(self, *_: Any) -> int:
        """Return 0: nothing was decoded before."""
        return 0

    @property
    def cross(self) -> list[KeyValue]:
        """Key and value [R, H, S, D] of every layer, in order."""
        return self._recorded.written


class StepCache(_TracedCache):
    """The state of a decoding step, from the graph's inputs.

    `past` holds key and value [N, H, P, D] of every layer, `cross` [R, H, S, D], `row_length` [N]
    the positions that each row already has, `total_length` [] the most after this step.
    """

    def __init__(
        self, past: list[KeyValue], cross: list[KeyValue], row_length: torch.Tensor, total_length: torch.Tensor
    ) -> None:
        self.past = past
        self.present: dict[int, KeyValue] = {}
        self.row_length = row_length
        self.total_length = total_length
        self._noted = _StepSelf(row_length)
        self.self_attention_cache = self._noted
        self.cross_attention_cache = _StepCross(cross)
        self.is_updated = dict.fromkeys(range(len(cross)), True)

    def get_seq_length(self, *_: Any) -> Any:
        """Return the position of every row [N, 1]."""
        return self._noted.get_seq_length()

    def take_pending(self) -> int | None:
        """Return the layer that has just called `update`, once; None for cross-attention."""
        layer, self._noted.pending = self._noted.pending, None
        return layer


class DecoderStepCache(_Half):
    """The state of a decoding step of a model that has only a decoder, as `StepCache` has it.

    It says that it is empty: such models are told the positions of their tokens.
    """

    def __init__(self, past: list[KeyValue], row_length: torch.Tensor, total_length: torch.Tensor) -> None:
        self.past = past
        self.present: dict[int, KeyValue] = {}
        self.row_length = row_length
        self.total_length = total_length
        self._pending: int | None = None

    def update(self, key: torch.Tensor, value: torch.Tensor, layer: int, *_: Any, **__: Any) -> KeyValue:
        """Note which layer has a new key and value; the attention function then appends them."""
        self._pending = layer
        return key, value

    def get_seq_length(self, *_: Any) -> int:
        """Return 0."""
        return 0

    def take_pending(self) -> int | None:
        """Return the layer that has just called `update`, once."""
        layer, self._pending = self._pending, None
        return layer

"""The model itself, with its attention exchanged for Regard's own operators.

Transformers lets anyone register an attention function and a mask function. Those below take the
place of the model's attention while it is traced and emit one placeholder operator each, of the
domain `regard`:

- `Attention(query, key, value, key_length)`: every query sees its row's first `key_length` keys;
- `CrossAttention(query, key, value, key_length)`: the same with several hypotheses of one request
  as its queries, so that keys and values are held once per request;
- `CachedAttention(query, key, value, past_key, past_value, row_length, total_length)`: one new
  position per row, appended in place to the row's cache;
- `AttentionWeights(query, key, key_length, rows[, total_length])`: the softmax of the scores, for
  the rows asked for only.

`regard_export.lowering` turns them into the operators of a target. Source of the interface:
https://huggingface.co/docs/transformers/attention_interface.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch.onnx import ops
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, bidirectional_mask_function

from regard_export.caches import StepCache
from regard_export.errors import CheckpointError

IMPLEMENTATION = "regard"
DOMAIN = "regard"


@dataclass(frozen=True)
class TracedTap:
    """The weights of one layer, as a value of the graph being traced."""

    kind: Literal["self", "cross"]
    stack: Literal["encoder", "decoder"]
    layer: int
    heads: int
    weights: torch.Tensor


@dataclass
class Trace:
    """What the attention function must know of the graph that is being traced, and what it saw.

    `source_length` [R] counts the real source positions of a request. `tap_rows` maps a kind of
    attention to the rows [A] whose weights are wanted; a kind that it lacks gets no taps.
    `decoder` is the set of the decoder's modules, `step` the cache of a decoding step.
    """

    source_length: torch.Tensor | None
    tap_rows: dict[str, torch.Tensor]
    tapped_stack: Literal["encoder", "decoder"]
    decoder: frozenset[torch.nn.Module] = frozenset()
    step: StepCache | None = None
    taps: list[TracedTap] = field(default_factory=list)

    def stack_of(self, module: torch.nn.Module) -> Literal["encoder", "decoder"]:
        """Return the stack that a module belongs to."""
        return "decoder" if module in self.decoder else "encoder"


_trace: ContextVar[Trace] = ContextVar("trace")


@contextmanager
def tracing(trace: Trace) -> Iterator[Trace]:
    """Make `trace` the one that the attention function reads and writes."""
    token = _trace.set(trace)
    try:
        yield trace
    finally:
        _trace.reset(token)


def _mask(*_: Any, mask_function: Any = None, attention_mask: torch.Tensor | None = None, **__: Any) -> Any:
    """Keep the 2-D padding mask for an encoder; a decoding step needs no mask at all."""
    if mask_function is not bidirectional_mask_function:
        return None
    return attention_mask


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Stand in for a model's attention: query, key, value [B, H, S, D] to output [B, S, H, D]."""
    trace = _trace.get()
    if attention_mask is not None and attention_mask.dim() != 2:
        raise CheckpointError(f"{type(module).__name__} uses a mask of {attention_mask.dim()} dimensions: unsupported")
    batch, heads, length, size = query.shape
    call = _Call(trace, module, heads, scaling if scaling is not None else size**-0.5)
    flat = query.transpose(1, 2).reshape(batch, length, heads * size)
    if trace.step is not None and (appended := trace.step.take_pending()) is not None:
        output = call.cached(flat, key, value, trace.step, appended)
    elif trace.step is not None:
        output = call.cross(flat, key, value)
    else:
        output = call.whole(flat, key, value)
    return output.reshape(batch, length, heads, size), None


@dataclass(frozen=True)
class _Call:
    """One call of the attention function, in the middle of a trace."""

    trace: Trace
    module: torch.nn.Module
    heads: int
    scale: float

    def whole(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        lengths = [] if self.trace.source_length is None else [self.trace.source_length]
        output = self._emit("Attention", [query, key, value, *lengths], query.shape)
        if self.trace.stack_of(self.module) == self.trace.tapped_stack:
            layer = sum(tap.kind == "self" for tap in self.trace.taps)
            self._tap("self", layer, [query, key, *lengths], key.shape[2])
        return output

    def cross(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        lengths = [] if self.trace.source_length is None else [self.trace.source_length]
        output = self._emit("CrossAttention", [query, key, value, *lengths], query.shape)
        layer = sum(tap.kind == "cross" for tap in self.trace.taps)
        self._tap("cross", layer, [query, key, *lengths], key.shape[2])
        return output

    def cached(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, step: StepCache, layer: int
    ) -> torch.Tensor:
        rows, _, length, _ = key.shape
        flat_key, flat_value = (t.transpose(1, 2).reshape(rows, length, -1) for t in (key, value))
        past_key, past_value = step.past[layer]
        output, present_key, present_value = ops.symbolic_multi_out(
            f"{DOMAIN}::CachedAttention",
            [query, flat_key, flat_value, past_key, past_value, step.row_length, step.total_length],
            {"num_heads": self.heads, "scale": float(self.scale)},
            dtypes=[query.dtype] * 3,
            shapes=[query.shape, past_key.shape, past_value.shape],
            version=1,
        )
        step.present[layer] = (present_key, present_value)
        self._tap("self", layer, [query, present_key, step.row_length, step.total_length], past_key.shape[2])
        return output

    def _emit(self, operator: str, inputs: list[torch.Tensor], shape: torch.Size) -> torch.Tensor:
        return ops.symbolic(
            f"{DOMAIN}::{operator}",
            inputs,
            {"num_heads": self.heads, "scale": float(self.scale)},
            dtype=inputs[0].dtype,
            shape=shape,
            version=1,
        )

    def _tap(self, kind: Literal["self", "cross"], layer: int, inputs: list[torch.Tensor], keys: int) -> None:
        rows = self.trace.tap_rows.get(kind)
        if rows is None:
            return
        query = inputs[0]
        weights = ops.symbolic(
            f"{DOMAIN}::AttentionWeights",
            [inputs[0], inputs[1], rows, *inputs[2:]],
            {"num_heads": self.heads, "scale": float(self.scale), "of_cache": int(len(inputs) == 4)},
            dtype=query.dtype,
            shape=(rows.shape[0], self.heads, query.shape[1], keys),
            version=1,
        )
        stack = self.trace.stack_of(self.module)
        self.trace.taps.append(TracedTap(kind, stack, layer, self.heads, weights))


AttentionInterface.register(IMPLEMENTATION, _attention)
AttentionMaskInterface.register(IMPLEMENTATION, _mask)

"""The model itself, with its attention exchanged for Regard's own operators.

Transformers lets anyone register an attention function and a mask function. Those below take the
place of the model's attention while it is traced and emit one placeholder operator each, of the
domain `regard`:

- `Attention(query, key, value[, key_length[, bias]])`: every query sees its row's first
  `key_length` keys; those up to its own place alone, if the node is `causal`;
- `CrossAttention(query, key, value[, key_length[, bias]])`: the same with several hypotheses of one
  request as its queries, so that keys and values are held once per request;
- `CachedAttention(query, key, value, past_key, past_value, row_length, total_length[, bias])`: one
  new position per row, appended in place to the row's cache, which may have fewer heads than the
  query: as many query heads in a row share one of its (Ainslie et al. 2023, GQA, section 2.2);
- `AttentionWeights(query, key, rows[, key_length[, total_length[, bias]]])`: the softmax of the
  scores, in float32 whatever query and key are, for the rows asked for only; `causal` as above, and key
  heads as of a cache. Its heads are put together if the node has a `reduction`, `mean` or `max`. If it has a
  `pooling`, there is a position more than keys: that of a query which pools them, the node's own or that of an`other`.

A `bias` [1 or R, 1 or H, Q, T] is added to the scaled scores: masks and relative positions.

`regard_export.lowering` turns them into the operators of a target. Source of the interface:
https://huggingface.co/docs/transformers/attention_interface.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import torch
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.onnx import ops
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, bidirectional_mask_function, causal_mask_function

from regard_export.caches import DecoderStepCache, StepCache
from regard_export.errors import CheckpointError

Operand = TypeVar("Operand")

Reduction = Literal["mean", "max"]
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
    reduction: Reduction | None = None


@dataclass
class Trace:
    """What the attention function must know of the graph that is being traced, and what it saw.

    `source_length` [R] counts the real source positions of a request; None if all are. `tap_rows`
    maps a kind of attention to the rows [A] whose weights are wanted; a kind that it lacks gets no
    taps, and neither does a stack that isn't among `tapped_stacks`. `reduced_rows` maps a reduction to the
    rows that want it of self-attention over the source. `decoder` is the set of the decoder's
    modules, `step` the cache of a decoding step; `causal` is whether the decoder reads a whole text. A
    source graph reads `source_rows` requests: attention over more rows than that, as over the windows of
    an image, is no attention between source positions and gets no tap. `window` is how many positions those
    layers see that don't see all. If it `pools`, its last attention has one query, which is a position before the
    others in every map.
    """

    source_length: torch.Tensor | None
    tap_rows: dict[str, torch.Tensor]
    tapped_stacks: frozenset[str]
    decoder: frozenset[torch.nn.Module] = frozenset()
    step: StepCache | DecoderStepCache | None = None
    causal: bool = False
    source_rows: int | torch.SymInt | None = None
    window: int | None = None
    pools: bool = False
    reduced_rows: dict[Reduction, torch.Tensor] = field(default_factory=dict)
    taps: list[TracedTap] = field(default_factory=list)
    attended: set[str] = field(default_factory=set)
    """The stacks that called the attention function."""

    def stack_of(self, module: torch.nn.Module) -> Literal["encoder", "decoder"]:
        """Return the stack that a module belongs to."""
        return "decoder" if module in self.decoder else "encoder"


_trace: ContextVar[Trace] = ContextVar("trace")


def current_trace() -> Trace:
    """Return the trace of the graph that is being traced."""
    return _trace.get()


@contextmanager
def tracing(trace: Trace) -> Iterator[Trace]:
    """Make `trace` the one that the attention function reads and writes."""
    token = _trace.set(trace)
    try:
        yield trace
    finally:
        _trace.reset(token)


def _mask(
    *_: Any,
    mask_function: Any = None,
    attention_mask: torch.Tensor | None = None,
    q_length: int | torch.SymInt = 1,
    dtype: torch.dtype = torch.float32,
    local_size: int | None = None,
    **__: Any,
) -> Any:
    """Keep the 2-D padding mask for an encoder; a decoding step, or a `causal` trace, needs no mask at all.

    An encoder that looks back only gets what is added to its scores, [1, 1, S, S]: padding is on the right,
    so that no real position sees it. So does whatever attends within a window; of a step, it is [N, 1, 1, P]. Raises
    `CheckpointError` for a window that the checkpoint's proof doesn't look beyond.
    """
    trace = _trace.get()
    if local_size is not None:
        return _window(trace, mask_function, q_length, dtype, local_size)
    if mask_function is bidirectional_mask_function:
        return attention_mask
    if mask_function is causal_mask_function and trace.step is None and not trace.causal:
        return torch.full((q_length, q_length), torch.finfo(dtype).min, dtype=dtype).triu(1)[None, None]
    return None


def _window(
    trace: Trace, sees: Callable[..., torch.Tensor], length: Any, dtype: torch.dtype, size: int
) -> torch.Tensor:
    """Return what is added to scores where a query `sees` only keys near it; both are told by their positions.

    Half of the lowest number leaves the sum finite: behind a text, a window may hold nothing but padding, and a
    softmax of nothing but infinities would be no number.
    """
    if size != trace.window:
        raise CheckpointError(f"the model attends within {size} positions, which config.json's sliding_window isn't")
    if trace.step is None:
        queries = keys = torch.arange(length)
    else:
        queries, keys = trace.step.row_length.to(torch.int64), torch.arange(trace.step.past[0][0].shape[2])
    first = torch.zeros((), dtype=torch.int64)
    seen = sees(first, first, queries[:, None], keys[None])
    bias = torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min / 2)
    return bias[None, None] if trace.step is None else bias[:, None, None]


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    scaling: float | None = None,
    position_bias: torch.Tensor | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Stand in for a model's attention: query [B, H, S, D] with key and value of H heads or fewer, to [B, S, H, D]."""
    if softcap is not None or s_aux is not None:
        what = "attention sinks" if softcap is None else f"scores that are capped softly at {softcap}"
        raise CheckpointError(f"{type(module).__name__} has {what}, which aren't taken yet")
    trace = _trace.get()
    trace.attended.add(trace.stack_of(module))
    batch, heads, length, size = query.shape
    bias = _sum(_additive(module, attention_mask), position_bias)
    call = _Call(trace, module, heads, scaling if scaling is not None else size**-0.5, bias)
    flat = query.transpose(1, 2).reshape(batch, length, heads * size)
    if trace.step is not None and (appended := trace.step.take_pending()) is not None:
        output = call.cached(flat, key, value, trace.step, appended)
    elif trace.step is not None:
        output = call.cross(flat, *call.for_every_query_head(key, value))
    else:
        output = call.whole(flat, *call.for_every_query_head(key, value))
    return output.reshape(batch, length, heads, size), None


def attend(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **options: Any
) -> torch.Tensor:
    """Call the attention function for a module that doesn't know of Transformers' interface."""
    output, _ = _attention(module, query, key, value, **options)
    return output


def _additive(module: torch.nn.Module, mask: torch.Tensor | None) -> torch.Tensor | None:
    """Return a mask of four dimensions, which is added to the scores; one of two says what lengths say already."""
    if mask is None or mask.dim() == 2:
        return None
    if mask.dim() != 4 or not mask.is_floating_point():
        raise CheckpointError(
            f"{type(module).__name__} uses a mask of {mask.dim()} dimensions and {mask.dtype}: unsupported"
        )
    return mask


def _sum(one: torch.Tensor | None, other: torch.Tensor | None) -> torch.Tensor | None:
    if one is None or other is None:
        return other if one is None else one
    return one + other


@dataclass(frozen=True)
class _Call:
    """One call of the attention function, in the middle of a trace."""

    trace: Trace
    module: torch.nn.Module
    heads: int
    scale: float
    bias: torch.Tensor | None

    @property
    def _attributes(self) -> dict[str, Any]:
        causal = self.trace.causal and self.trace.stack_of(self.module) == "decoder"
        return {"num_heads": self.heads, "scale": float(self.scale)} | ({"causal": 1} if causal else {})

    def for_every_query_head(self, *shared: torch.Tensor) -> list[torch.Tensor]:
        """Return keys, and values, [B, h, T, D] as [B, H, T, D]: each again for all query heads that share it."""
        return [
            one.repeat_interleave(self.heads // one.shape[1], 1) if self.heads != one.shape[1] else one
            for one in shared
        ]

    def whole(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        length = self.trace.source_length
        output = self._emit("Attention", [query, key, value, length, self.bias])
        in_tapped_stack = self.trace.stack_of(self.module) in self.trace.tapped_stacks
        if in_tapped_stack and statically_known_true(query.shape[0] == self.trace.source_rows):
            self._tap("self", [query, key], [length, None, self.bias], key.shape[2])
            for reduction in self.trace.reduced_rows:
                self._tap("self", [query, key], [length, None, self.bias], key.shape[2], reduction)
        return output

    def cross(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        length = self.trace.source_length
        output = self._emit("CrossAttention", [query, key, value, length, self.bias])
        self._tap("cross", [query, key], [length, None, self.bias], key.shape[2])
        return output

    def cached(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        step: StepCache | DecoderStepCache,
        layer: int,
    ) -> torch.Tensor:
        rows, _, length, _ = key.shape
        flat_key, flat_value = (t.transpose(1, 2).reshape(rows, length, -1) for t in (key, value))
        past_key, past_value = step.past[layer]
        lengths = [step.row_length, step.total_length]
        output, present_key, present_value = ops.symbolic_multi_out(
            f"{DOMAIN}::CachedAttention",
            trimmed([query, flat_key, flat_value, past_key, past_value, *lengths, self.bias]),
            self._attributes,
            dtypes=[query.dtype] * 3,
            shapes=[query.shape, past_key.shape, past_value.shape],
            version=1,
        )
        step.present[layer] = (present_key, present_value)
        self._tap("self", [query, present_key], [*lengths, self.bias], past_key.shape[2])
        return output

    def _emit(self, operator: str, inputs: list[torch.Tensor | None]) -> torch.Tensor:
        query = inputs[0]
        assert query is not None
        return ops.symbolic(
            f"{DOMAIN}::{operator}",
            trimmed(inputs),
            self._attributes,
            dtype=query.dtype,
            shape=query.shape,
            version=1,
        )

    def _tap(
        self,
        kind: Literal["self", "cross"],
        tensors: list[torch.Tensor],
        options: list[torch.Tensor | None],
        keys: int | torch.SymInt,
        reduction: Reduction | None = None,
    ) -> None:
        rows = self.trace.reduced_rows[reduction] if reduction else self.trace.tap_rows.get(kind)
        if rows is None:
            return
        queries: int | torch.SymInt = tensors[0].shape[1]
        attributes = self._attributes
        if reduction:
            attributes["reduction"] = reduction
        if self.trace.pools:
            attributes["pooling"] = "query" if queries == 1 else "other"
            queries = keys = keys + 1
        weights = ops.symbolic(
            f"{DOMAIN}::AttentionWeights",
            trimmed([*tensors, rows, *options]),
            attributes,
            dtype=torch.float32,
            shape=(rows.shape[0], 1 if reduction else self.heads, queries, keys),
            version=1,
        )
        stack = self.trace.stack_of(self.module)
        same = (kind, stack, reduction)
        layer = sum((tap.kind, tap.stack, tap.reduction) == same for tap in self.trace.taps)
        self.trace.taps.append(TracedTap(kind, stack, layer, self.heads, weights, reduction))


def trimmed(inputs: list[Operand | None]) -> list[Operand | None]:
    """Leave out the absent inputs of an operator at their end."""
    while inputs[-1] is None:
        inputs = inputs[:-1]
    return inputs


AttentionInterface.register(IMPLEMENTATION, _attention)
AttentionMaskInterface.register(IMPLEMENTATION, _mask)

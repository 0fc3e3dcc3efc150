"""The graphs of a package, as modules that can be traced: the contracts of `regard.manifest`.

Each wraps the whole, unmodified model; what its outputs don't need is pruned from the graph.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch.onnx import ops
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from regard.manifest import TapSpec
from regard_export.attention import Trace, tracing
from regard_export.caches import KeyValue, RecordingCache, StepCache

TAP_ROWS = {"self": "self_tap_rows", "cross": "cross_tap_rows"}


@dataclass(frozen=True)
class Example:
    """Inputs to trace a graph with: names, tensors, and the letters of the dimensions that vary."""

    tensors: dict[str, torch.Tensor]
    dimensions: dict[str, dict[int, str]]


@dataclass
class Findings:
    """What tracing found out; `torch.export` restores a module's own attributes afterwards."""

    output_names: list[str] = field(default_factory=list)
    taps: list[TapSpec] = field(default_factory=list)


class TracedGraph(torch.nn.Module):
    """A graph of a package. `findings` holds its outputs' names and taps once it has been traced."""

    name: Literal["encoder", "step", "classifier"]

    def __init__(self, model: PreTrainedModel, *, taps: bool) -> None:
        super().__init__()
        self.model = model
        self.with_taps = taps
        self.findings = Findings()

    def _finish(self, outputs: dict[str, torch.Tensor], trace: Trace) -> tuple[torch.Tensor, ...]:
        tapped = {f"{tap.kind}_attention.{tap.layer}": tap for tap in trace.taps}
        self.findings.output_names = [*outputs, *tapped]
        self.findings.taps = [
            TapSpec(
                graph=self.name,
                kind=tap.kind,
                stack=tap.stack,
                layer=tap.layer,
                heads=tap.heads,
                output=output,
                rows_input=TAP_ROWS[tap.kind],
            )
            for output, tap in tapped.items()
        ]
        return tuple(outputs.values()) + tuple(tap.weights for tap in tapped.values())

    def example(self) -> Example:
        """Return inputs of small, distinct sizes."""
        raise NotImplementedError


def padding_mask(input_ids: torch.Tensor, source_length: torch.Tensor) -> torch.Tensor:
    """Return int64 [R, S], 1 where a position is real."""
    positions = torch.arange(input_ids.shape[1], dtype=source_length.dtype)
    return (positions[None] < source_length[:, None]).to(torch.int64)


class ClassifierGraph(TracedGraph):
    """`input_ids`, `source_length` -> `logits` and the self-attention of every layer."""

    name = "classifier"

    def forward(
        self, input_ids: torch.Tensor, source_length: torch.Tensor, self_tap_rows: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, ...]:
        """Trace the model on right-padded rows."""
        rows = {} if self_tap_rows is None else {"self": self_tap_rows}
        with tracing(Trace(source_length, rows, tapped_stack="encoder")) as trace:
            output = self.model(input_ids=input_ids, attention_mask=padding_mask(input_ids, source_length))
        return self._finish({"logits": output.logits}, trace)

    def example(self) -> Example:
        """Return two ragged rows."""
        return _source_example(self.with_taps)


class EncoderGraph(TracedGraph):
    """`input_ids`, `source_length` -> cross-attention state and the encoder's self-attention."""

    name = "encoder"

    def forward(
        self, input_ids: torch.Tensor, source_length: torch.Tensor, self_tap_rows: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, ...]:
        """Trace the whole model for one dummy token, whose cross-attention yields the state."""
        cache = RecordingCache()
        rows = {} if self_tap_rows is None else {"self": self_tap_rows}
        trace = Trace(source_length, rows, "encoder", decoder=frozenset(self.model.get_decoder().modules()))
        with tracing(trace):
            self.model(
                input_ids=input_ids,
                attention_mask=padding_mask(input_ids, source_length),
                decoder_input_ids=torch.zeros_like(input_ids[:, :1]),
                past_key_values=cache,
                use_cache=True,
            )
        return self._finish(_named("cross", cache.cross), trace)

    def example(self) -> Example:
        """Return two ragged rows."""
        return _source_example(self.with_taps)


class StepGraph(TracedGraph):
    """One decoding step of N rows, each at its own position, with k rows for each request."""

    name = "step"

    def forward(
        self,
        token_ids: torch.Tensor,
        row_length: torch.Tensor,
        total_length: torch.Tensor,
        source_length: torch.Tensor,
        num_candidates: torch.Tensor,
        past_key: list[torch.Tensor],
        past_value: list[torch.Tensor],
        cross_key: list[torch.Tensor],
        cross_value: list[torch.Tensor],
        self_tap_rows: torch.Tensor | None = None,
        cross_tap_rows: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, ...]:
        """Trace the whole model from its caches on; the encoder is not run."""
        past = list(zip(past_key, past_value, strict=True))
        cross = list(zip(cross_key, cross_value, strict=True))
        cache = StepCache(past, cross, row_length, total_length)
        asked = {"self": self_tap_rows, "cross": cross_tap_rows}
        trace = Trace(
            source_length,
            {kind: rows for kind, rows in asked.items() if rows is not None},
            tapped_stack="decoder",
            decoder=frozenset(self.model.get_decoder().modules()),
            step=cache,
        )
        unread = torch.zeros(token_ids.shape[0], 1, self.model.config.d_model)
        with tracing(trace):
            output = self.model(
                encoder_outputs=BaseModelOutput(last_hidden_state=unread),
                decoder_input_ids=token_ids,
                past_key_values=cache,
                use_cache=True,
            )
        logits = output.logits[:, -1]
        outputs = _candidates(logits, num_candidates) | {"logits": logits}
        outputs |= _named("present", [pair for _, pair in sorted(cache.present.items())])
        return self._finish(outputs, trace)

    def example(self) -> Example:
        """Return six rows of three requests, each at a position of its own."""
        config = self.model.config
        heads = config.decoder_attention_heads
        size, layers = config.d_model // heads, config.decoder_layers
        rows, requests, positions, source = 6, 3, 8, 5
        tensors = {
            "token_ids": torch.zeros(rows, 1, dtype=torch.int64),
            "row_length": torch.arange(rows, dtype=torch.int32),
            "total_length": torch.tensor(rows, dtype=torch.int32),
            "source_length": torch.tensor([5, 4, 3], dtype=torch.int32),
            "num_candidates": torch.tensor([2]),
        }
        dimensions: dict[str, dict[int, str]] = {
            "token_ids": {0: "N"},
            "row_length": {0: "N"},
            "total_length": {},
            "source_length": {0: "R"},
            "num_candidates": {},
        }
        state = {
            "past": ((rows, heads, positions, size), {0: "N", 2: "P"}),
            "cross": ((requests, heads, source, size), {0: "R", 2: "S"}),
        }
        for (name, (shape, varying)), half in ((s, h) for s in state.items() for h in ("key", "value")):
            for layer in range(layers):
                tensors[f"{name}_{half}.{layer}"] = torch.zeros(shape)
                dimensions[f"{name}_{half}.{layer}"] = varying
        if self.with_taps:
            tensors |= {name: torch.tensor([0, 2]) for name in TAP_ROWS.values()}
            dimensions |= {TAP_ROWS["self"]: {0: "A"}, TAP_ROWS["cross"]: {0: "B"}}
        return Example(tensors, dimensions)


def _source_example(taps: bool) -> Example:
    tensors = {
        "input_ids": torch.zeros(2, 7, dtype=torch.int64),
        "source_length": torch.tensor([7, 5], dtype=torch.int32),
    }
    dimensions = {"input_ids": {0: "R", 1: "S"}, "source_length": {0: "R"}}
    if taps:
        tensors[TAP_ROWS["self"]] = torch.tensor([0, 1, 1])
        dimensions[TAP_ROWS["self"]] = {0: "A"}
    return Example(tensors, dimensions)


def _candidates(logits: torch.Tensor, num_candidates: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the best K tokens of every row and the logarithm of the softmax' denominator."""
    scores, ids = ops.symbolic_multi_out(
        "regard::Candidates",
        [logits, num_candidates],
        {},
        dtypes=[logits.dtype, torch.int64],
        shapes=[(logits.shape[0], 2)] * 2,
        version=1,
    )
    total = ops.symbolic(
        "regard::LogSumExp", [logits, scores], {}, dtype=logits.dtype, shape=(logits.shape[0], 1), version=1
    )
    return {"candidate_ids": ids, "candidate_scores": scores, "log_sum_exp": total}


def _named(prefix: str, pairs: list[KeyValue]) -> dict[str, torch.Tensor]:
    keys = {f"{prefix}_key.{layer}": pair[0] for layer, pair in enumerate(pairs)}
    values = {f"{prefix}_value.{layer}": pair[1] for layer, pair in enumerate(pairs)}
    return keys | values

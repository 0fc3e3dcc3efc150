"""The graphs of a package, as modules that can be traced: the contracts of `regard.manifest`.

Each wraps the whole, unmodified model; what its outputs don't need is pruned from the graph.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch.onnx import ops

from regard.manifest import TapSpec
from regard_export.attention import Reduction, Trace, TracedTap, tracing
from regard_export.caches import DecoderStepCache, KeyValue, PrefillCache, RecordingCache, StepCache
from regard_export.checkpoint import Checkpoint
from regard_export.errors import CheckpointError
from regard_export.families import Decoder, logits_of
from regard_export.inputs import Example, Inputs, Tensors

TAP_ROWS = {"self": "self_tap_rows", "cross": "cross_tap_rows"}
NORM_ROWS = {"self": "self_norm_rows", "cross": "cross_norm_rows"}
REDUCED_ROWS: dict[Reduction, str] = {"mean": "self_mean_rows", "max": "self_max_rows"}


@dataclass
class Findings:
    """What tracing found out; `torch.export` restores a module's own attributes afterwards."""

    output_names: list[str] = field(default_factory=list)
    taps: list[TapSpec] = field(default_factory=list)


class Graph(torch.nn.Module, ABC):
    """A graph of a package. `findings` holds its outputs' names and taps once it has been traced."""

    name: Literal["encoder", "prefill", "step", "classifier", "text_encoder", "image_encoder"]

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model: Any = model
        self.findings = Findings()

    @abstractmethod
    def example(self) -> Example:
        """Return inputs of small, distinct sizes."""


class TracedGraph(Graph):
    """A graph of a checkpoint's package. A `stack` of its own names what its taps are of in a package of several."""

    stack: Literal["text_encoder", "image_encoder"] | None = None

    def __init__(self, checkpoint: Checkpoint, *, taps: bool) -> None:
        super().__init__(checkpoint.model)
        self.checkpoint = checkpoint
        self.with_taps = taps

    def _finish(self, outputs: dict[str, torch.Tensor], trace: Trace) -> tuple[torch.Tensor, ...]:
        for stack in sorted(trace.tapped_stacks - trace.attended):
            raise CheckpointError(
                f"{type(self.model).__name__}: its {stack} computes attention by itself, not through "
                "Transformers' attention interface; it needs an adapter in regard_export/families"
            )
        tapped = {
            f"{name}.{index}": tap
            for name in ("self_attention", "self_mean", "self_max", "cross_attention")
            for index, tap in enumerate(tap for tap in trace.taps if _output(tap) == name)
        }
        self.findings.output_names = [*outputs, *tapped]
        self.findings.taps = [
            TapSpec(
                graph=self.name,
                kind=tap.kind,
                stack=self.stack or tap.stack,
                layer=tap.layer,
                heads=1 if tap.reduction else tap.heads,
                output=output,
                rows_input=REDUCED_ROWS[tap.reduction] if tap.reduction else TAP_ROWS[tap.kind],
                reduction=tap.reduction,
            )
            for output, tap in tapped.items()
        ]
        return tuple(outputs.values()) + tuple(tap.weights for tap in tapped.values())


class _SourceGraph(TracedGraph):
    """A graph that reads the source."""

    @property
    def inputs(self) -> Inputs:
        """What it reads."""
        return self.checkpoint.sources.get(self.name, self.checkpoint.inputs)

    def _trace(
        self,
        source: Tensors,
        rows: torch.Tensor | None,
        reduced: Sequence[torch.Tensor | None],
        tapped_stacks: frozenset[str] = frozenset({"encoder"}),
    ) -> Trace:
        return Trace(
            source.get("source_length"),
            {} if rows is None else {"self": rows},
            tapped_stacks,
            source_rows=next(iter(source.values())).shape[0],
            window=self.checkpoint.window,
            pools="pixel_values" in source and self.checkpoint.family.pools(self.checkpoint.model),
            reduced_rows={name: one for name, one in zip(REDUCED_ROWS, reduced, strict=True) if one is not None},
        )

    def _arguments(self, source: Tensors) -> dict[str, torch.Tensor]:
        """Return what the model is called with; pixels come in float32 and go on in its own precision."""
        arguments = self.inputs.arguments(source)
        return {name: t.to(self.model.dtype) if t.is_floating_point() else t for name, t in arguments.items()}

    def example(self) -> Example:
        """Return two rows."""
        example = self.inputs.example()
        if self.with_taps:
            for name, dimension in zip((TAP_ROWS["self"], *REDUCED_ROWS.values()), "ABC", strict=True):
                example.add(name, torch.tensor([0, 1, 1]), {0: dimension})
        return example


class ClassifierGraph(_SourceGraph):
    """The source -> `logits` and the self-attention of every layer."""

    name = "classifier"

    def forward(
        self,
        source: dict[str, torch.Tensor],
        self_tap_rows: torch.Tensor | None = None,
        self_mean_rows: torch.Tensor | None = None,
        self_max_rows: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, ...]:
        """Trace the model on right-padded rows."""
        with tracing(self._trace(source, self_tap_rows, (self_mean_rows, self_max_rows))) as trace:
            output = self.model(**self._arguments(source))
        return self._finish({"logits": logits_of(output).float()}, trace)


class _TowerGraph(_SourceGraph):
    """One of the two encoders of a model that compares: its source -> `embeddings` of length 1, and self-attention."""

    def forward(
        self,
        source: dict[str, torch.Tensor],
        self_tap_rows: torch.Tensor | None = None,
        self_mean_rows: torch.Tensor | None = None,
        self_max_rows: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, ...]:
        """Trace the half of the model that reads this source."""
        with tracing(self._trace(source, self_tap_rows, (self_mean_rows, self_max_rows))) as trace:
            output = self.checkpoint.family.embed(self.model, self._arguments(source))
        assert output.pooler_output is not None
        return self._finish({"embeddings": torch.nn.functional.normalize(output.pooler_output.float(), dim=-1)}, trace)


class TextEncoderGraph(_TowerGraph):
    """Reads texts."""

    name = "text_encoder"
    stack = "text_encoder"


class ImageEncoderGraph(_TowerGraph):
    """Looks at images."""

    name = "image_encoder"
    stack = "image_encoder"


class EncoderGraph(_SourceGraph):
    """The source -> cross-attention state and the encoder's self-attention."""

    name = "encoder"

    def forward(
        self,
        source: dict[str, torch.Tensor],
        self_tap_rows: torch.Tensor | None = None,
        self_mean_rows: torch.Tensor | None = None,
        self_max_rows: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, ...]:
        """Trace the whole model for one dummy token, whose cross-attention yields the state."""
        cache = RecordingCache()
        trace = self._trace(source, self_tap_rows, (self_mean_rows, self_max_rows))
        trace.decoder = frozenset(self.checkpoint.family.decoder(self.model).modules())
        with tracing(trace):
            rows = next(iter(source.values())).shape[0]
            token = torch.zeros(rows, 1, dtype=torch.int64)
            arguments = self._arguments(source)
            self.checkpoint.family.decode(self.model, token, source=arguments, cache=cache)
        return self._finish(_named("cross", cache.cross), trace)


class PrefillGraph(_SourceGraph):
    """The source -> the state that a decoder without an encoder goes on from, and its self-attention."""

    name = "prefill"

    def forward(
        self,
        source: dict[str, torch.Tensor],
        self_tap_rows: torch.Tensor | None = None,
        self_mean_rows: torch.Tensor | None = None,
        self_max_rows: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, ...]:
        """Trace the decoder on the whole source: padding on the right of a text is behind all that counts."""
        sees = self.checkpoint.image is not None
        tapped = frozenset({"encoder", "decoder"} if sees else {"decoder"})
        trace = self._trace(source, self_tap_rows, (self_mean_rows, self_max_rows), tapped)
        trace.decoder = frozenset(self.checkpoint.family.decoder(self.model).modules())
        trace.causal = not sees
        cache = PrefillCache()
        with tracing(trace):
            self.checkpoint.family.prefill(self.model, self._arguments(source), cache)
        return self._finish(_named("first", cache.written), trace)


class StepGraph(TracedGraph):
    """One decoding step of N rows, each at its own position, with k rows for each request."""

    name = "step"

    def forward(
        self,
        token_ids: torch.Tensor,
        row_length: torch.Tensor,
        total_length: torch.Tensor,
        num_candidates: torch.Tensor,
        past_key: list[torch.Tensor],
        past_value: list[torch.Tensor],
        cross_key: Sequence[torch.Tensor] = (),
        cross_value: Sequence[torch.Tensor] = (),
        source_length: torch.Tensor | None = None,
        self_tap_rows: torch.Tensor | None = None,
        cross_tap_rows: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, ...]:
        """Trace the whole model from its caches on; the encoder is not run."""
        past = list(zip(past_key, past_value, strict=True))
        cross = list(zip(cross_key, cross_value, strict=True))
        lengths = row_length, total_length
        cache = StepCache(past, cross, *lengths) if cross else DecoderStepCache(past, *lengths)
        family = self.checkpoint.family
        asked = {"self": self_tap_rows, "cross": cross_tap_rows}
        trace = Trace(
            source_length,
            {kind: rows for kind, rows in asked.items() if rows is not None},
            frozenset({"decoder"}),
            decoder=frozenset(family.decoder(self.model).modules()),
            step=cache,
            window=self.checkpoint.window,
        )
        with tracing(trace):
            output = self._step(token_ids, cache)
        logits = output.logits[:, -1].float()
        outputs = candidates(logits, num_candidates) | {"logits": logits}
        outputs |= _named("present", [pair for _, pair in sorted(cache.present.items())])
        return self._finish(outputs, trace)

    def _step(self, token_ids: torch.Tensor, cache: StepCache | DecoderStepCache) -> Any:
        family = self.checkpoint.family
        if isinstance(cache, StepCache):
            unread = torch.zeros(token_ids.shape[0], 1, self.decoder.encoder_width, dtype=self.model.dtype)
            positions = cache.get_seq_length()
            return family.decode(self.model, token_ids, hidden=unread, cache=cache, positions=positions)
        before = self.checkpoint.image.positions if self.checkpoint.image else 0
        positions = cache.row_length.to(torch.int64)[:, None] - before
        return family.step(self.model, token_ids, cache, positions)

    @property
    def decoder(self) -> Decoder:
        """The sizes of the decoder's state."""
        assert self.checkpoint.decoder is not None
        return self.checkpoint.decoder

    def example(self) -> Example:
        """Return six rows of three requests, each at a position of its own."""
        rows, requests, positions = 6, 3, 8
        example = Example()
        example.add("token_ids", torch.zeros(rows, 1, dtype=torch.int64), {0: "N"})
        example.add("row_length", torch.arange(rows, dtype=torch.int32), {0: "N"})
        example.add("total_length", torch.tensor(rows, dtype=torch.int32), {})
        example.add("num_candidates", torch.tensor([2]), {})
        for half in ("key", "value"):
            for layer, size in enumerate(self.decoder.own):
                past = torch.zeros(rows, size.heads, positions, size.size, dtype=self.model.dtype)
                example.add(f"past_{half}.{layer}", past, {0: "N", 2: "P"})
        for half in ("key", "value"):
            for layer, size in enumerate(self.decoder.cross):
                cross = torch.zeros(requests, size.heads, 5, size.size, dtype=self.model.dtype)
                example.add(f"cross_{half}.{layer}", cross, {0: "R", 2: "S"})
        if "source_length" in self.checkpoint.inputs.example().tensors:
            example.add("source_length", torch.tensor([5, 4, 3], dtype=torch.int32), {0: "R"})
        if self.with_taps:
            example.add(TAP_ROWS["self"], torch.tensor([0, 2]), {0: "A"})
            if self.decoder.cross:
                example.add(TAP_ROWS["cross"], torch.tensor([0, 2]), {0: "B"})
        return example


def candidates(logits: torch.Tensor, num_candidates: torch.Tensor) -> dict[str, torch.Tensor]:
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
        "regard::LogSumExp", [logits, scores, ids], {}, dtype=logits.dtype, shape=(logits.shape[0], 1), version=1
    )
    return {"candidate_ids": ids, "candidate_scores": scores, "log_sum_exp": total}


def _output(tap: TracedTap) -> str:
    return f"{tap.kind}_{tap.reduction or 'attention'}"


def _named(prefix: str, pairs: list[KeyValue]) -> dict[str, torch.Tensor]:
    keys = {f"{prefix}_key.{layer}": pair[0] for layer, pair in enumerate(pairs)}
    values = {f"{prefix}_value.{layer}": pair[1] for layer, pair in enumerate(pairs)}
    return keys | values

"""The graphs of a package that is made from a module: the contracts of `regard.manifest`."""

from __future__ import annotations

from typing import Literal

import torch

from regard.manifest import TapSpec
from regard_export.graphs import TAP_ROWS, Graph, candidates
from regard_export.inputs import Example, Tensors
from regard_export.modules.blueprint import Blueprint


class ModuleGraph(Graph):
    """A graph around a module."""

    def __init__(self, blueprint: Blueprint) -> None:
        super().__init__(blueprint.module)
        self.blueprint = blueprint

    def _finish(
        self, outputs: dict[str, torch.Tensor], taps: dict[str, tuple[TapSpec, torch.Tensor]]
    ) -> tuple[torch.Tensor, ...]:
        self.findings.output_names = [*outputs, *taps]
        self.findings.taps = [tap for tap, _ in taps.values()]
        return tuple(outputs.values()) + tuple(weights for _, weights in taps.values())

    def _tap(
        self, kind: Literal["self", "cross"], layer: int, weights: torch.Tensor
    ) -> tuple[str, tuple[TapSpec, torch.Tensor]]:
        """Name the weights [A, H, queries, S] of a layer."""
        output = f"{kind}_attention.{layer}"
        spec = TapSpec(
            graph=self.name,
            kind=kind,
            stack="encoder" if kind == "self" else "decoder",
            layer=layer,
            heads=int(weights.shape[1]),
            output=output,
            rows_input=TAP_ROWS[kind],
        )
        return output, (spec, weights)


class ModuleClassifier(ModuleGraph):
    """The source -> `logits` and the self-attention of every layer."""

    name = "classifier"

    def forward(self, source: dict[str, torch.Tensor], self_tap_rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Trace the module on right-padded rows."""
        logits, weights = self.model.classify(*_source(source))
        taps = dict(self._tap("self", layer, one[self_tap_rows]) for layer, one in enumerate(weights))
        return self._finish({"logits": logits}, taps)

    def example(self) -> Example:
        """Return two rows."""
        example = self.blueprint.inputs.example()
        example.add(TAP_ROWS["self"], torch.tensor([0, 1, 1]), {0: "A"})
        return example


class ModuleEncoder(ModuleGraph):
    """The source -> the memory [R, 1, S, W] and the state that a row begins with."""

    name = "encoder"

    def forward(self, source: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Trace the module on right-padded rows."""
        memory, state = self.model.encode(*_source(source))
        first = {f"first_state.{index}": vector for index, vector in enumerate(state)}
        return self._finish({"cross_memory.0": memory[:, None]} | first, {})

    def example(self) -> Example:
        """Return two rows."""
        return self.blueprint.inputs.example()


class ModuleStep(ModuleGraph):
    """One step of N rows, with k rows for each request."""

    name = "step"

    def forward(
        self,
        token_ids: torch.Tensor,
        num_candidates: torch.Tensor,
        past_state: list[torch.Tensor],
        cross_memory: list[torch.Tensor],
        cross_tap_rows: torch.Tensor,
        source_length: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, ...]:
        """Trace the module from its state on; the memory is held once for each request."""
        rows, requests = token_ids.shape[0], cross_memory[0].shape[0]
        request = torch.arange(rows) // (rows // requests)
        lengths = None if source_length is None else source_length[request]
        logits, state, weights = self.model.step(
            token_ids[:, 0], tuple(past_state), cross_memory[0][:, 0][request], lengths
        )
        outputs = candidates(logits, num_candidates) | {"logits": logits}
        outputs |= {f"present_state.{index}": vector for index, vector in enumerate(state)}
        return self._finish(outputs, dict([self._tap("cross", 0, weights[cross_tap_rows][:, :, None])]))

    def example(self) -> Example:
        """Return six rows of three requests."""
        rows, requests = 6, 3
        sample = self.blueprint.inputs.example().tensors
        with torch.no_grad():
            memory, state = self.model.encode(*_source(sample))
        example = Example()
        example.add("token_ids", torch.zeros(rows, 1, dtype=torch.int64), {0: "N"})
        example.add("num_candidates", torch.tensor([2]), {})
        for index, vector in enumerate(state):
            example.add(f"past_state.{index}", torch.zeros(rows, vector.shape[1]), {0: "N"})
        image = self.blueprint.image
        positions = 5 if image is None else image.positions
        varying = {0: "R"} if image is not None else {0: "R", 2: "S"}
        example.add("cross_memory.0", torch.zeros(requests, 1, positions, memory.shape[2]), varying)
        example.add(TAP_ROWS["cross"], torch.tensor([0, 2]), {0: "B"})
        if image is None:
            example.add("source_length", torch.tensor([5, 4, 3], dtype=torch.int32), {0: "R"})
        return example


def _source(inputs: Tensors) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the source, and its lengths if it has any."""
    if "pixel_values" in inputs:
        return inputs["pixel_values"], None
    return inputs["input_ids"], inputs["source_length"]

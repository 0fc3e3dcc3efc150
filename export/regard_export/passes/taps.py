"""The graph without its taps, for targets whose fused kernels are kept for those who ask for no attention."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from regard.manifest import TapSpec


def remove_taps(model: ir.Model, taps: Iterable[TapSpec]) -> None:
    """Take the taps, their inputs and all that only they needed out of a lowered graph."""
    outputs, inputs = {tap.output for tap in taps}, {tap.rows_input for tap in taps}
    kept = [value for value in model.graph.outputs if value.name not in outputs]
    model.graph.outputs[:] = kept
    RemoveUnusedNodesPass()(model)
    read = [value for value in model.graph.inputs if value.name not in inputs]
    model.graph.inputs[:] = read

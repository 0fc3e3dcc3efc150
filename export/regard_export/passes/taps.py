"""The graph without its taps, for targets whose fused kernels are kept for those who ask for no attention."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from regard.manifest import TapSpec
from regard_export.graphs import REDUCED_ROWS


def remove_unread_rows(model: ir.Model) -> None:
    """Take out the inputs of rows that ask for heads put together, where no attention can be asked for them."""
    read = [value for value in model.graph.inputs if value.uses() or value.name not in REDUCED_ROWS.values()]
    model.graph.inputs[:] = read


def remove_taps(model: ir.Model, taps: Iterable[TapSpec]) -> None:
    """Take the taps, their inputs and all that only they needed out of a lowered graph."""
    outputs, inputs = {tap.output for tap in taps}, {tap.rows_input for tap in taps}
    kept = [value for value in model.graph.outputs if value.name not in outputs]
    model.graph.outputs[:] = kept
    _close_branches(model)
    RemoveUnusedNodesPass()(model)
    read = [value for value in model.graph.inputs if value.name not in inputs]
    model.graph.inputs[:] = read


def _close_branches(model: ir.Model) -> None:
    """Let the branches of an `If` whose outputs nobody reads read nothing: what they read counts as used otherwise."""
    for node in reversed(model.graph):  # a branch may read what another one gives
        if node.op_type == "If" and not any(value.uses() or value.is_graph_output() for value in node.outputs):
            for inner in ir.traversal.RecursiveGraphIterator(node.attributes["then_branch"].as_graph()):
                inner.resize_inputs(0)

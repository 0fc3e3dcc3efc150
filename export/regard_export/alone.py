"""The step of int8 for a row that is alone, beside the one for any number of rows.

A row that is alone can screen the vocabulary (`screening.py`), needs no scales for tokens (`token_scales.py`), as its
batch's is its own, and has one hypothesis (`lowering/hypotheses.py`). To choose at each place where that saves time
would cost a step of one row a part of what it saves, and even one choice between two whole branches a twentieth of the
step (Marian's base shape on two threads of an EPYC). So they are two graphs, with one file of weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from regard_export.screening import screen


def step_alone(model: ir.Model, path: Path, weights: Mapping[str, onnx.TensorProto]) -> ir.Model | None:
    """Return the twin of the quantised step at `path` for a row that is alone; None if it can't screen.

    `weights` are those in fp32 by the names that they had; new ones go to the file beside the graph.
    """
    twin = model.clone()
    if not screen(twin, path, weights):
        return None
    _settle(twin.graph)
    RemoveUnusedNodesPass()(twin)
    return twin


def _settle(graph: ir.Graph) -> None:
    """Put, in place, the branch for requests of one hypothesis each where it is chosen."""
    for node in list(graph):
        if node.op_type == "If" and _compares_rows(node.inputs[0]):
            branch = node.attributes["then_branch"].as_graph()
            nodes, outputs = list(branch), list(branch.outputs)
            branch.outputs.clear()
            branch.remove(nodes)
            for moved in nodes:
                moved.name = None  # which is its own only within the branch
            ir.convenience.replace_nodes_and_values(graph, node, [node], nodes, node.outputs, outputs)


def _compares_rows(condition: ir.Value | None) -> bool:
    """Whether it asks if two values have as many rows: where there is one row, they have."""
    compared = condition.producer() if condition is not None else None
    if compared is None or compared.op_type != "Equal":
        return False
    return all(value is not None and _counts_rows(value.producer()) for value in compared.inputs)


def _counts_rows(node: ir.Node | None) -> bool:
    return node is not None and node.op_type == "Shape" and node.attributes["start"].as_int() == 0

"""Attention weights of all layers of a decoding step, from one branch.

A step is short, and to enter a branch takes as long as a small operator does. So what nobody asks for is passed over
once for all layers.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.tape import Tape

from regard_export.attention import DOMAIN
from regard_export.lowering.weights import Scores, weights_of_asking


def weigh_together(model: ir.Model) -> None:
    """Lower, in place, all `AttentionWeights` of one query a row that have the same rows and lengths to one `If`."""
    alike: dict[tuple[ir.Value | None, ...], list[ir.Node]] = {}
    for node in model.graph:
        if node.domain == DOMAIN and node.op_type == "AttentionWeights":
            one = Scores.of(node)
            if one.query.shape is not None and one.query.shape[1] == 1:
                alike.setdefault((one.rows, one.length, one.total), []).append(node)
    for nodes in alike.values():
        tape, old = Tape(), [node.outputs[0] for node in nodes]
        new = weights_of_asking(tape, [Scores.of(node) for node in nodes], f"{old[0].name}.")
        ir.convenience.replace_nodes_and_values(model.graph, nodes[-1], nodes, tape.nodes, old, new)
    if alike:
        model.graph.sort()  # what reads the weights of the first layers comes after those of the last now

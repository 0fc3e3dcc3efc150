"""Which keys of a cache the rows of a step attend: made once for the weights of all layers, if any row asks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape

from regard_export.attention import DOMAIN
from regard_export.lowering.operands import constant, int64
from regard_export.lowering.weights import ATTENDED, choose


def share_masks(model: ir.Model) -> None:
    """Give all `AttentionWeights` of one cache the output of one `KeysOfCache(rows, row_length, total_length)`."""
    shared: dict[tuple[ir.Value | None, ...], ir.Value] = {}
    for node in list(model.graph):
        if node.domain != DOMAIN or node.op_type != "AttentionWeights":
            continue
        rows, length, total = [*node.inputs, None, None][2:5]
        if length is None or total is None:
            continue
        if (rows, length, total) not in shared:
            keys = ir.node("KeysOfCache", [rows, length, total], domain=DOMAIN)
            model.graph.insert_before(node, keys)
            shared[rows, length, total] = keys.outputs[0]
        node.resize_inputs(ATTENDED + 1)
        node.replace_input_with(ATTENDED, shared[rows, length, total])


def keys_of_cache(node: ir.Node, tape: Tape) -> Sequence[ir.Value]:
    """Return bool [N, 1, 1, T], which of the first T = `total_length` keys a row attends; nothing if nobody asks."""
    rows, length, total = node.inputs
    name = node.outputs[0].name

    def made(tape: Tape) -> Sequence[ir.Value]:
        end = tape.op("Cast", [total], {"to": ir.DataType.INT64})
        places = tape.op("Range", [constant(tape, np.int64(0)), end, constant(tape, np.int64(1))])
        own = tape.op("Reshape", [tape.op("Cast", [length], {"to": ir.DataType.INT64}), int64(tape, [-1, 1, 1, 1])])
        return [tape.op("LessOrEqual", [places, own])]

    def nothing(tape: Tape) -> Sequence[ir.Value]:
        return [constant(tape, np.zeros((0, 1, 1, 0), np.bool_))]

    asked = tape.op("Greater", [tape.op("Size", [rows]), constant(tape, np.int64(0))])
    return choose(tape, asked, (made, nothing), (f"{name}.made", f"{name}.not"))

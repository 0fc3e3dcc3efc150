"""Weights with a position for a query that pools all others, as `regard_export.pooling` has it in PyTorch."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape

from regard_export.lowering.operands import constant, int64


def with_pooling(tape: Tape, weights: ir.Value, pooling: str | None, key: ir.Value) -> ir.Value:
    """Return [A, H, 1 + T, 1 + T]: the first position has `weights` [A, H, 1, T], if `pooling` is by this query.

    Then all others attend to themselves. By another, `weights` [A, H, T, T] are those of the others, and the first
    position attends to itself. Without `pooling`, weights stay as they are. `key` [R, H, T, D] has a fixed T.
    """
    if pooling is None:
        return weights
    assert key.shape is not None
    count = key.shape[2]
    assert isinstance(count, int)
    below = count if pooling == "query" else 0
    above = 0 if pooling == "query" else 1
    around = tape.op("Pad", [weights, int64(tape, [0, 0, above, 1, 0, 0, below, 0])])
    places = np.arange(1 + count)
    at_itself = places > 0 if pooling == "query" else places == 0
    same = tape.op("Equal", [constant(tape, places[:, None]), constant(tape, np.where(at_itself, places, -1))])
    return tape.op("Add", [around, tape.op("Cast", [same], {"to": ir.DataType.FLOAT})])

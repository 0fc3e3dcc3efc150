"""What the rules of several targets write their operators' inputs with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape

BY_HEAD = {"perm": [0, 2, 1, 3]}
"""What exchanges the positions and the heads of [R, S, H, D], and of [R, H, S, D]."""


def int64(tape: Tape, values: Sequence[int]) -> ir.Value:
    """Return a constant vector."""
    return constant(tape, np.array(values, dtype=np.int64))


def split_heads(tape: Tape, value: ir.Value | None, heads: int) -> ir.Value:
    """Return [R, S, W] as [R, H, S, D]."""
    return tape.op("Transpose", [tape.op("Reshape", [value, int64(tape, [0, 0, heads, -1])])], BY_HEAD)


def join_heads(tape: Tape, value: ir.Value) -> ir.Value:
    """Return [R, H, S, D] as [R, S, W]."""
    return tape.op("Reshape", [tape.op("Transpose", [value], BY_HEAD), int64(tape, [0, 0, -1])])


def heads_of(value: ir.Value | None) -> int:
    """Return how many heads a cache, or keys or values, [R, H, T, D] have."""
    assert value is not None and value.shape is not None
    heads = value.shape[1]
    assert isinstance(heads, int)
    return heads


def is_whole(value: ir.Value) -> bool:
    """Whether a value has its heads side by side, [R, S, W]."""
    return value.shape is not None and len(value.shape) == 3


def unsplit(key: ir.Value, value: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Return keys and values [R, H, T, D] as the [R, T, W] that their heads were split from; as they are otherwise."""
    whole_key, whole_value = _before_heads(key), _before_heads(value)
    return (key, value) if whole_key is None or whole_value is None else (whole_key, whole_value)


def _before_heads(value: ir.Value) -> ir.Value | None:
    split = value.producer()
    if split is None or split.op_type != "Transpose" or list(split.attributes["perm"].as_ints()) != BY_HEAD["perm"]:
        return None
    reshape = split.inputs[0].producer() if split.inputs[0] is not None else None
    whole = reshape.inputs[0] if reshape is not None and reshape.op_type == "Reshape" else None
    return whole if whole is not None and is_whole(whole) else None


def constant(tape: Tape, value: np.ndarray | np.generic) -> ir.Value:
    """Return a constant of any shape and type."""
    return tape.op("Constant", [], {"value": ir.tensor(np.asarray(value))})

"""What the rules of several targets write their operators' inputs with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape


def int64(tape: Tape, values: Sequence[int]) -> ir.Value:
    """Return a constant vector."""
    return constant(tape, np.array(values, dtype=np.int64))


def constant(tape: Tape, value: np.ndarray | np.generic) -> ir.Value:
    """Return a constant of any shape and type."""
    return tape.op("Constant", [], {"value": ir.tensor(np.asarray(value))})

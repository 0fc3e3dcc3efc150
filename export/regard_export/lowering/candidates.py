"""The best next tokens of a decoding step and what makes probabilities of their scores: the same for all targets."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir
from onnx_ir.tape import Tape

from regard_export.lowering.operands import int64


def candidates(node: ir.Node, tape: Tape) -> Sequence[ir.Value]:
    """Take the K largest logits of every row, in descending order."""
    scores, ids = tape.op_multi_out("TopK", node.inputs, {"axis": -1}, num_outputs=2)
    return [scores, ids]


def log_sum_exp(node: ir.Node, tape: Tape) -> Sequence[ir.Value]:
    """Recover the softmax' denominator from its largest term, which the softmax kernel is fast at.

    With p the largest probability and s its logit, log sum exp = s - log p; p is at least 1 / V.
    """
    logits, scores, ids = node.inputs
    zero, one, axis = (int64(tape, [value]) for value in (0, 1, 1))
    best_score, best = (tape.op("Slice", [candidates, zero, one, axis]) for candidates in (scores, ids))
    probabilities = tape.op("Softmax", [logits], {"axis": -1})
    best_probability = tape.op("GatherElements", [probabilities, best], {"axis": 1})
    return [tape.op("Sub", [best_score, tape.op("Log", [best_probability])])]

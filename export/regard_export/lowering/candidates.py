"""The best next tokens of a decoding step and what makes probabilities of their scores."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx_ir as ir
from onnx_ir.tape import Tape

from regard_export.attention import DOMAIN
from regard_export.lowering.operands import int64
from regard_export.lowering.weights import choose

LEAST_VOCABULARY = 8192
"""Of fewer logits a lone row's best are found as fast by looking at each (of 8,192 in 19 us, block by block in 22)."""
SMALLEST_BLOCK, BLOCK, LARGEST_BLOCK = 64, 256, 1024
"""How many logits a block may have: the least, the best, the most."""


def candidates(node: ir.Node, tape: Tape) -> Sequence[ir.Value]:
    """Take the K largest logits of every row, in descending order; of those that are equal, the first."""
    scores, ids = tape.op_multi_out("TopK", node.inputs, {"axis": -1}, num_outputs=2)
    return [scores, ids]


def candidates_by_block(node: ir.Node, tape: Tape) -> Sequence[ir.Value]:
    """Take the K largest logits of every row, as `candidates` does, and look at each of K blocks of them only.

    Each of the K largest is in one of the K blocks whose largest are largest. The largest of a block is found by
    vector instructions: 32 rows of 58,101 logits take a third of TopK's time for two tokens of each row, less than half
    for 8, as much for 50, and 1.3 times as much for 300 (one thread of an EPYC). Where the vocabulary can't be cut into
    blocks of one size, TopK must do.
    """
    logits, num_candidates = node.inputs
    assert logits is not None and logits.shape is not None and isinstance(logits.shape[-1], int)
    size = block_size(logits.shape[-1])
    if size is None:
        return candidates(node, tape)
    blocks, last, width = logits.shape[-1] // size, int64(tape, [-1]), int64(tape, [size])
    parts = tape.op("Reshape", [logits, int64(tape, [0, blocks, size])])
    largest = tape.op("ReduceMax", [parts, last], {"keepdims": 0})
    taken = tape.op("Min", [num_candidates, int64(tape, [blocks])])
    _, best = tape.op_multi_out("TopK", [largest, taken], {"axis": -1}, num_outputs=2)
    chosen, _ = tape.op_multi_out("TopK", [best, taken], {"axis": -1, "largest": 0}, num_outputs=2)
    listed = tape.op("GatherND", [parts, tape.op("Unsqueeze", [chosen, last])], {"batch_dims": 1})
    listed = tape.op("Reshape", [listed, int64(tape, [0, -1])])
    scores, places = tape.op_multi_out("TopK", [listed, num_candidates], {"axis": -1}, num_outputs=2)
    block = tape.op("GatherElements", [chosen, tape.op("Div", [places, width])], {"axis": 1})
    return [scores, tape.op("Add", [tape.op("Mul", [block, width]), tape.op("Mod", [places, width])])]


def block_size(vocabulary: int) -> int | None:
    """Return how many logits a block has: what divides the vocabulary and is nearest to the best; None if nothing does.

    T5's 32,128, M2M100's 128,112, mT5's 250,112, Whisper's 51,865, Llama's 32,000 and Marian's 58,101 and 59,514 can
    be cut; GPT-2's 50,257, BART's 50,265 and NLLB's 256,206 can't.
    """
    if vocabulary < LEAST_VOCABULARY:
        return None
    sizes = [size for size in range(SMALLEST_BLOCK, LARGEST_BLOCK + 1) if vocabulary % size == 0]
    return min(sizes, key=lambda size: abs(math.log(size / BLOCK)), default=None)


def ask_whether_scored(model: ir.Model) -> None:
    """Let a step, in place, be told whether it is `scored` [1] bool: whether `LogSumExp` has to be found."""
    for node in model.graph:
        if node.domain == DOMAIN and node.op_type == "LogSumExp":
            scored = ir.Value(name="scored", type=ir.TensorType(ir.DataType.BOOL), shape=ir.Shape([1]))
            model.graph.inputs.append(scored)
            node.resize_inputs(len(node.inputs) + 1)
            node.replace_input_with(len(node.inputs) - 1, scored)


def log_sum_exp(node: ir.Node, tape: Tape) -> Sequence[ir.Value]:
    """Recover the softmax' denominator from its largest term, which the softmax kernel is fast at.

    With p the largest probability and s its logit, log sum exp = s - log p; p is at least 1 / V. Where a step is told
    whether it is `scored` and is not, it is 0: a search that takes the best, or draws, can do without, and the
    softmax over 58,101 logits takes 4 to 6 % of an int8 step of Marian's base shape (1 to 64 rows).
    """
    logits, scores, ids, scored = [*node.inputs, None][:4]
    zero, one, axis = (int64(tape, [value]) for value in (0, 1, 1))
    best_score = tape.op("Slice", [scores, zero, one, axis])

    def total(tape: Tape) -> Sequence[ir.Value]:
        best = tape.op("Slice", [ids, zero, one, axis])
        probabilities = tape.op("Softmax", [logits], {"axis": -1})
        best_probability = tape.op("GatherElements", [probabilities, best], {"axis": 1})
        return [tape.op("Sub", [best_score, tape.op("Log", [best_probability])])]

    def nothing(tape: Tape) -> Sequence[ir.Value]:
        return [tape.op("Sub", [best_score, best_score])]  # 0, or no number where the best score is none

    if scored is None:
        return total(tape)
    name = node.outputs[0].name
    return choose(tape, scored, (total, nothing), (f"{name}.scored", f"{name}.unscored"))

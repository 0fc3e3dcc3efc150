"""Scores of rows, not of positions.

A step reads one position of each row, and cuts it out of the scores [N, 1, V] that the model gives:
a copy of the largest tensor of the whole graph. Cut out of what the last product reads, it is next
to nothing.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.tape import Tape

from regard_export.lowering.operands import int64

ELEMENTWISE = frozenset({"Add", "Mul", "Div", "Tanh"})
"""What may stand between the product and its scores: biases, scales and soft caps."""


def cut_before_scores(model: ir.Model) -> None:
    """Where the only position is taken of a product by a matrix [W, V], take it of the product's rows [N, 1, W]."""
    for node in list(model.graph):
        scores = node.inputs[0] if node.op_type == "Gather" else None
        if scores is None or node.attributes["axis"].as_int() != 1 or not _is_only_position(node):
            continue
        chain = _chain(scores)
        if chain is not None:
            _cut(model.graph, node, scores, chain)


def _is_only_position(node: ir.Node) -> bool:
    """Whether a Gather along axis 1 of [N, 1, V] takes that axis away."""
    scores, index = node.inputs
    found = ir.convenience.get_const_tensor(index) if index is not None else None
    shape = scores.shape if scores is not None else None
    return found is not None and found.shape.rank() == 0 and shape is not None and len(shape) == 3 and shape[1] == 1


def _chain(scores: ir.Value) -> list[ir.Node] | None:
    """Return the product and what is done to each of its elements, the product first; None if there is more to it."""
    chain: list[ir.Node] = []
    value: ir.Value | None = scores
    while value is not None and len(value.uses()) == 1 and (producer := value.producer()) is not None:
        chain.insert(0, producer)
        if producer.op_type == "MatMul":
            matrix = producer.inputs[1]
            return chain if matrix is not None and matrix.shape is not None and len(matrix.shape) == 2 else None
        if producer.op_type not in ELEMENTWISE or not all(map(_is_vector, producer.inputs[1:])):
            return None
        value = producer.inputs[0]
    return None


def _is_vector(value: ir.Value | None) -> bool:
    """Whether a constant means the same to [N, V] as to [N, 1, V]."""
    constant = ir.convenience.get_const_tensor(value) if value is not None else None
    return constant is not None and constant.shape.rank() <= 2 and all(dim == 1 for dim in constant.shape[:-1])


def _cut(graph: ir.Graph, node: ir.Node, scores: ir.Value, chain: list[ir.Node]) -> None:
    product, cut = chain[0], node.outputs[0]
    tape = Tape()
    rows = tape.op("Squeeze", [product.inputs[0], int64(tape, [1])])
    graph.insert_before(product, tape.nodes)
    product.replace_input_with(0, rows)
    for one in chain:
        one.outputs[0].shape = cut.shape
    ir.convenience.replace_nodes_and_values(graph, node, [node], [], [cut], [scores])

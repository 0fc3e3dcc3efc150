"""Scales of their own for the activations of each token, in graphs of int8 that have one for a whole batch."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnx_ir.tape import Tape

from regard_export.lowering.operands import constant, int64

LARGEST = 127
"""What the largest magnitude among a token's activations is rounded to."""
MIDDLE = 128
"""What 0 is rounded to."""
SMALLEST = 1e-30
"""What stands for the largest magnitude where all of a token's activations are 0."""


def scale_tokens(model: ir.Model, *, only_narrowing: bool = False) -> None:
    """Give the activations of every token, in place, a scale of their own where they are rounded, or are narrowed."""
    for node in list(model.graph):
        if node.op_type != "DynamicQuantizeLinear":
            continue
        products = [_Product(user) for user, _ in node.outputs[0].uses()]
        if only_narrowing and not all(product.narrows for product in products):
            continue
        tape = Tape()
        rounded = _Rounded(tape, node.inputs[0], products[0].width)
        model.graph.insert_after(node, tape.nodes)
        for product in products:
            product.replace(model.graph, rounded)
    RemoveUnusedNodesPass()(model)
    model.opset_imports["com.microsoft"] = 1


class _Rounded:
    """Activations, rounded token by token, and what to multiply them by: `unit`, and each token's `largest`.

    All of a token's activations, `width` of them, are one block of QuantizeLinear's blocked quantisation, which ONNX
    Runtime computes with all threads, in half the time of a division by `largest` and one scale for all tokens.
    """

    def __init__(self, tape: Tape, activations: ir.Value | None, width: int) -> None:
        last = int64(tape, [-1])
        highest, lowest = (tape.op(name, [activations, last], {"keepdims": 1}) for name in ("ReduceMax", "ReduceMin"))
        self.largest = tape.op("Max", [highest, tape.op("Neg", [lowest]), constant(tape, np.float32(SMALLEST))])
        self.unit, self.zero = constant(tape, np.float32(1 / LARGEST)), constant(tape, np.uint8(MIDDLE))
        scales = tape.op("Mul", [self.largest, self.unit])
        middle = ir.tensor([MIDDLE], ir.DataType.UINT8)
        zeros = tape.op("ConstantOfShape", [tape.op("Shape", [scales])], {"value": middle})
        self.values = tape.op("QuantizeLinear", [activations, scales, zeros], {"axis": -1, "block_size": width})


class _Product:
    """What the quantiser made of a product: activations rounded, multiplied, cast, and multiplied by both scales."""

    def __init__(self, multiply: ir.Node) -> None:
        self._multiply = multiply
        (cast,) = multiply.outputs[0].consumers()
        (self._scaled,) = cast.outputs[0].consumers()
        scales = (one.producer() for one in self._scaled.inputs if one is not None)
        (self._scale,) = (node for node in scales if node is not None and node is not cast)
        weights = multiply.inputs[1]
        assert weights is not None and weights.shape is not None
        self.width, self._columns = weights.shape.numpy()

    @property
    def narrows(self) -> bool:
        """Whether it gives fewer values than it takes."""
        return self.width > self._columns

    def replace(self, graph: ir.Graph, rounded: _Rounded) -> None:
        """Let it multiply what was rounded token by token."""
        tape, old = Tape(), self._scaled.outputs[0]
        new = self._of(tape, rounded)
        ir.convenience.replace_nodes_and_values(graph, self._scaled, [self._scaled], tape.nodes, [old], [new])

    def _of(self, tape: Tape, rounded: _Rounded) -> ir.Value:
        weights, weights_zero = self._multiply.inputs[1], self._multiply.inputs[3]
        weights_scale = next(one for one in self._scale.inputs if one is not None and one.producer() is None)
        inputs = [rounded.values, weights, rounded.unit, weights_scale, rounded.zero, weights_zero]
        exact = tape.op("MatMulIntegerToFloat", inputs, domain="com.microsoft")
        return tape.op("Mul", [exact, rounded.largest])

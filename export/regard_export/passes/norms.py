"""Norms by the root mean square (Zhang and Sennrich 2019, Root Mean Square Layer Normalization), as one operator each.

Models write them as what they are: squares, their mean, its root and two products. That would be six nodes for each
norm of every step.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from regard_export.attention import DOMAIN
from regard_export.passes.matching import before_cast, number, producer


def unite_norms(model: ir.Model) -> None:
    """Write, in place, `x / sqrt(mean(x^2) + epsilon) * weight` over the last dimension as one `RMSNormalization`.

    A norm in float32 of what is narrower is one of that: the operator is as exact.
    """
    graph = model.graph
    for product in list(graph):
        if product.op_type != "Mul" or product.graph is None:
            continue
        for normed, weight in (product.inputs, reversed(product.inputs)):
            found = _norm(normed) if normed is not None and _is_weight(weight) else None
            if found is not None:
                _unite(graph, product, weight, *found)
                break
    RemoveUnusedNodesPass()(model)


def _is_weight(value: ir.Value | None) -> bool:
    return value is not None and value.const_value is not None and value.shape is not None and len(value.shape) == 1


def _norm(normed: ir.Value) -> tuple[ir.Value, float] | None:
    """Return what is normed, and epsilon, if a value is that, without a weight yet."""
    product = producer(before_cast(normed), "Mul")
    for hidden, inverse in (product.inputs, reversed(product.inputs)) if product else ():
        root = producer(_input(producer(inverse, "Reciprocal")), "Sqrt")
        total = producer(_input(root), "Add")
        for mean, epsilon in (total.inputs, reversed(total.inputs)) if total else ():
            reduced = producer(mean, "ReduceMean")
            square = producer(_input(reduced), "Pow")
            if (
                square is not None
                and hidden is not None
                and square.inputs[0] is hidden
                and number(square.inputs[1]) == 2
                and reduced is not None
                and number(reduced.inputs[1]) == -1
                and (least := number(epsilon)) is not None
            ):
                return hidden, least
    return None


def _unite(graph: ir.Graph, product: ir.Node, weight: ir.Value | None, hidden: ir.Value, epsilon: float) -> None:
    assert weight is not None
    given, output = hidden, product.outputs[0]
    if weight.dtype != hidden.dtype:
        narrow = before_cast(hidden)
        if narrow is None or narrow.dtype != weight.dtype:
            return
        given = narrow
    united = ir.Value(name=output.name, type=output.type, shape=output.shape)
    node = ir.node("RMSNormalization", [given, weight], {"epsilon": epsilon}, domain=DOMAIN, outputs=[united])
    ir.convenience.replace_nodes_and_values(graph, product, [product], [node], [output], [united])


def _input(node: ir.Node | None) -> ir.Value | None:
    return node.inputs[0] if node is not None else None

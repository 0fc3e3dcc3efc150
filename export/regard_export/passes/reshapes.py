"""Reshapes that undo one another.

A model splits its heads for the attention function, and the attention function puts them together
again: two reshapes, and none is left once both are looked at together. Each would cost a node of
every step.
"""

from __future__ import annotations

import onnx_ir as ir


def drop_idle_reshapes(model: ir.Model) -> None:
    """Where a chain of reshapes ends in the shape that it began with, read its beginning instead."""
    graph = model.graph
    kept = set(graph.outputs)
    for node in graph:
        if node.op_type != "Reshape":
            continue
        origin = _origin(node)
        output = node.outputs[0]
        if origin is not None and output not in kept:
            ir.convenience.replace_all_uses_with(output, origin)
    for node in reversed(graph):
        if node.op_type == "Reshape" and node.outputs[0] not in kept and not node.outputs[0].uses():
            graph.remove(node, safe=True)


def _origin(node: ir.Node) -> ir.Value | None:
    """Return the value of the same shape that a chain of reshapes ending in `node` began with."""
    shape = node.outputs[0].shape
    value = node.inputs[0]
    while value is not None and shape is not None:
        if value.shape == shape:
            return value
        producer = value.producer()
        if producer is None or producer.op_type != "Reshape":
            return None
        value = producer.inputs[0]
    return None

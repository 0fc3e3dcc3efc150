"""Products of flattened rows, as products of rows.

GPT-2's linear layers flatten their input, multiply and add in one Gemm, and unflatten. As a MatMul
and an Add they need no reshapes, can be packed and quantised, and fuse with what comes after.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.tape import Tape


def unflatten_products(model: ir.Model) -> None:
    """Where a Gemm stands between two reshapes that undo one another, multiply the unflattened rows."""
    graph = model.graph
    for node in list(graph):
        if node.op_type != "Gemm" or not _is_plain(node):
            continue
        rows = _unflattened(node)
        restored = [user for user, _ in node.outputs[0].uses()]
        if rows is None or rows.shape is None or not all(_restores(user, rows) for user in restored):
            continue
        tape = Tape()
        product = tape.op("MatMul", [rows, node.inputs[1]])
        total = tape.op("Add", [product, node.inputs[2]])
        product.type = total.type = node.outputs[0].type
        product.shape = total.shape = restored[0].outputs[0].shape
        graph.insert_before(node, tape.nodes)
        for user in restored:
            ir.convenience.replace_all_uses_with(user.outputs[0], total)
            graph.remove(user, safe=True)
        graph.remove(node, safe=True)


def _is_plain(node: ir.Node) -> bool:
    names = {"transA": 0, "transB": 0, "alpha": 1.0, "beta": 1.0}
    return len(node.inputs) == 3 and all(
        node.attributes[name].value == plain for name, plain in names.items() if name in node.attributes
    )


def _unflattened(node: ir.Node) -> ir.Value | None:
    """Return the value [.., .., W] that was reshaped, once or twice, to [.., W]."""
    value = flattened = node.inputs[0]
    while value is not None and flattened is not None and flattened.shape is not None:
        reshape = value.producer()
        if reshape is None or reshape.op_type != "Reshape":
            return None
        value = reshape.inputs[0]
        if value is not None and value.shape is not None and len(value.shape) == 3:
            return value if value.shape[2] == flattened.shape[-1] else None
    return None


def _restores(user: ir.Node, rows: ir.Value) -> bool:
    shape = user.outputs[0].shape
    return (
        user.op_type == "Reshape"
        and shape is not None
        and rows.shape is not None
        and list(shape[:-1]) == list(rows.shape[:-1])
        and not user.outputs[0].is_graph_output()
    )

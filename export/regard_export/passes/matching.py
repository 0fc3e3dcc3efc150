"""What the passes look for in a graph."""

from __future__ import annotations

import onnx_ir as ir

from regard_export.lowering.operands import BY_HEAD


def producer(value: ir.Value | None, op_type: str) -> ir.Node | None:
    """Return the node that makes a value, if it is an ONNX operator of this type."""
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == op_type and node.domain == "" else None


def before_cast(value: ir.Value | None) -> ir.Value | None:
    """Return what a value was cast from, or itself if it was not."""
    cast = producer(value, "Cast")
    return value if cast is None else cast.inputs[0]


def numbers(value: ir.Value | None) -> list[float] | None:
    """Return what a constant of one dimension holds."""
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    return [float(one) for one in tensor.numpy()] if tensor is not None and tensor.shape.rank() == 1 else None


def number(value: ir.Value | None) -> float | None:
    """Return the number that a constant of whatever dimensions holds alone."""
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    return float(tensor.numpy().item()) if tensor is not None and tensor.size == 1 else None


def exchanges_heads(node: ir.Node) -> bool:
    """Whether a node makes [R, H, S, D] of [R, S, H, D], or the other way round."""
    return node.op_type == "Transpose" and list(node.attributes["perm"].as_ints()) == BY_HEAD["perm"]


def heads_and_size(value: ir.Value) -> tuple[int, int]:
    """Return how many heads [R, S, H, D] has, and how large they are."""
    assert value.shape is not None
    heads, size = value.shape[2:]
    assert isinstance(heads, int) and isinstance(size, int)
    return heads, size

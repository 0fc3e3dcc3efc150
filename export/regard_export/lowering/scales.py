"""Queries of a decoding step that are scaled where they are made, and not where their scores are.

ONNX Runtime multiplies a single row by a matrix without copying the matrix first, but only if nothing scales the
product: https://github.com/microsoft/onnxruntime/blob/main/onnxruntime/core/mlas/lib/sgemm.cpp, `MlasSgemmOperation`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.tape import Tape

from regard_export.attention import DOMAIN
from regard_export.lowering.operands import constant
from regard_export.lowering.weights import taps_of

Factors = npt.NDArray[np.float32]


def scale_queries(model: ir.Model) -> None:
    """Let, in place, no attention of a step and no tap of it have a scale of its own but 1."""
    for node in list(model.graph):
        if node.domain != DOMAIN or node.op_type not in ("CachedAttention", "CrossAttention"):
            continue
        query, scale = node.inputs[0], node.attributes["scale"].as_float()
        if query is None or query.shape is None or scale == 1:
            continue
        readers = [node, *taps_of(node)]
        others = [user for user, _ in query.uses() if user not in readers and user.op_type != "Shape"]
        width = query.shape[2]
        assert isinstance(width, int)
        packed = node.op_type == "CachedAttention" and node.inputs[1] is None  # with key and value behind the query
        factors = np.ones(width, np.float32)
        factors[: _query_width(node) if packed else width] = scale
        if others or not _fold(model.graph, query, factors):
            _multiply(model.graph, query, factors, readers)
        for reader in readers:
            reader.attributes["scale"] = ir.AttrFloat32("scale", 1.0)


def _query_width(attention: ir.Node) -> int:
    """Return the width of all heads' queries, of an attention with a cache [N, h, P, D]."""
    past = attention.inputs[3]
    assert past is not None and past.shape is not None
    size = past.shape[3]
    assert isinstance(size, int)
    return attention.attributes["num_heads"].as_int() * size


def _fold(graph: ir.Graph, query: ir.Value, factors: Factors) -> bool:
    """Scale the weights and the bias that a query is made with; return whether it is made of such."""
    constants, made = list[tuple[ir.Node, int, str]](), query.producer()
    if made is not None and made.op_type == "RotaryEmbedding":  # what is turned stays as long as it is
        turned = made.inputs[0]
        assert turned is not None
        return len(turned.uses()) == 1 and _fold(graph, turned, factors)
    if made is not None and made.op_type == "Add":
        index = next(
            (index for index, value in enumerate(made.inputs) if value and value.const_value is not None), None
        )
        product = made.inputs[1 - index] if index is not None else None
        if index is None or product is None or len(product.uses()) > 1:
            return False
        constants.append((made, index, "bias"))
        made = product.producer()
    if made is None or made.op_type != "MatMul" or made.inputs[1] is None or made.inputs[1].const_value is None:
        return False
    for node, index, what in (*constants, (made, 1, "weight")):
        _scale(graph, node, index, factors, f"{query.name}.scaled_{what}")
    return True


def _scale(graph: ir.Graph, node: ir.Node, index: int, factors: Factors, name: str) -> None:
    old = node.inputs[index]
    assert old is not None and old.const_value is not None
    array = old.const_value.numpy() * factors
    tensor = ir.tensor(array, name=name)
    new = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(new)
    node.replace_input_with(index, new)
    if old.is_initializer() and not old.uses() and old.name is not None:
        graph.initializers.pop(old.name)


def _multiply(graph: ir.Graph, query: ir.Value, factors: Factors, readers: list[ir.Node]) -> None:
    """Scale the query itself, before the first of its readers."""
    tape = Tape()
    scaled = tape.op("Mul", [query, constant(tape, factors)])
    scaled.type, scaled.shape = query.type, query.shape
    graph.insert_before(readers[0], tape.nodes)
    for reader in readers:
        reader.replace_input_with(0, scaled)

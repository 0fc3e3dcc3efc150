"""Query, key and value of a decoding step from one matrix product instead of three.

A step multiplies a few rows by large matrices: fewer, wider products keep more of the machine
busy. `CachedAttention` takes the packed result as it is (its key and value inputs are left out),
and `AttentionWeights` cuts the query out of it when a row asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.tape import Tape

from regard_export.attention import DOMAIN

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class _Projection:
    """`source @ weight + bias`, with constant weight [W, W'] and bias [W']."""

    source: ir.Value
    weight: Array
    bias: Array
    output: ir.Value


def pack_projections(model: ir.Model) -> None:
    """Pack the projections of every `CachedAttention` whose three inputs come from one value."""
    for node in list(model.graph):
        if node.domain != DOMAIN or node.op_type != "CachedAttention":
            continue
        projections = [_projection(value) for value in node.inputs[:3]]
        found = [projection for projection in projections if projection is not None]
        if len(found) == 3 and len({projection.source for projection in found}) == 1:
            _pack(model.graph, node, found)


def _pack(graph: ir.Graph, node: ir.Node, projections: Sequence[_Projection]) -> None:
    query = projections[0].output
    tape = Tape()
    weight = _initializer(graph, f"{query.name}.packed_weight", [p.weight for p in projections])
    bias = _initializer(graph, f"{query.name}.packed_bias", [p.bias for p in projections])
    packed = tape.op("Add", [tape.op("MatMul", [projections[0].source, weight]), bias])
    packed.type = query.type
    if query.shape is not None:
        width = sum(projection.weight.shape[1] for projection in projections)
        packed.shape = ir.Shape([*query.shape[:-1], width])
    order = list(graph)
    producers = [producer for p in projections if (producer := p.output.producer()) is not None]
    graph.insert_before(min(producers, key=order.index), tape.nodes)
    for user, index in list(query.uses()):
        if user.op_type == "AttentionWeights" and user.domain == DOMAIN and index == 0:
            user.replace_input_with(0, packed)
            user.attributes["query_width"] = ir.AttrInt64("query_width", projections[0].weight.shape[1])
    node.replace_input_with(0, packed)
    for index in (1, 2):
        node.replace_input_with(index, None)
    for projection in projections:
        _remove_unused(graph, projection.output)


def _projection(value: ir.Value | None) -> _Projection | None:
    add = value.producer() if value is not None else None
    if value is None or add is None or add.op_type != "Add":
        return None
    for product, bias in (add.inputs, reversed(add.inputs)):
        matmul = product.producer() if product is not None else None
        if matmul is None or matmul.op_type != "MatMul" or bias is None or bias.const_value is None:
            continue
        source, weight = matmul.inputs
        if source is not None and weight is not None and weight.const_value is not None:
            return _Projection(source, weight.const_value.numpy(), bias.const_value.numpy(), value)
    return None


def _initializer(graph: ir.Graph, name: str, parts: Sequence[Array]) -> ir.Value:
    array = np.concatenate(parts, axis=-1)
    tensor = ir.tensor(array, name=name)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def _remove_unused(graph: ir.Graph, value: ir.Value) -> None:
    """Remove the node that makes `value`, and what only it read, if nothing reads `value`."""
    node = value.producer()
    if value.uses() or node is None:
        return
    inputs = [one for one in node.inputs if one is not None]
    graph.remove(node, safe=True)
    for one in inputs:
        if one.is_initializer() and not one.uses() and one.name is not None:
            graph.initializers.pop(one.name, None)
        else:
            _remove_unused(graph, one)

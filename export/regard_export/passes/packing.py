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
    """`source @ weight + bias`, with constant weight [W, W'] and bias [W'], if it has one."""

    source: ir.Value
    weight: Array
    bias: Array | None
    output: ir.Value


def pack_projections(model: ir.Model) -> None:
    """Pack the projections of every `CachedAttention` whose three inputs come from one value."""
    for node in list(model.graph):
        if node.domain != DOMAIN or node.op_type != "CachedAttention":
            continue
        split = _split(node)
        if split is not None:
            _unite(node, split)
            continue
        projections = [_projection(value) for value in node.inputs[:3]]
        found = [projection for projection in projections if projection is not None]
        if len(found) == 3 and len({(p.source, p.bias is None) for p in found}) == 1:
            _pack(model.graph, node, found)


def _split(node: ir.Node) -> ir.Node | None:
    """Return the node that splits query, key and value out of one value, as GPT-2 does."""
    split = node.inputs[0].producer() if node.inputs[0] is not None else None
    if split is None or split.op_type != "Split" or list(split.outputs) != list(node.inputs[:3]):
        return None
    return split


def _unite(node: ir.Node, split: ir.Node) -> None:
    query, packed = split.outputs[0], split.inputs[0]
    assert packed is not None and query.shape is not None
    _use_packed(node, query, packed, query.shape[-1])
    if split.graph is not None and not any(output.uses() for output in split.outputs):
        split.graph.remove(split, safe=True)


def _use_packed(node: ir.Node, query: ir.Value, packed: ir.Value, query_width: int | ir.SymbolicDim) -> None:
    """Let `node`, and the taps that read `query`, read `packed` instead."""
    assert isinstance(query_width, int)
    for user, index in list(query.uses()):
        if user.op_type == "AttentionWeights" and user.domain == DOMAIN and index == 0:
            user.replace_input_with(0, packed)
            user.attributes["query_width"] = ir.AttrInt64("query_width", query_width)
    node.replace_input_with(0, packed)
    for index in (1, 2):
        node.replace_input_with(index, None)


def _pack(graph: ir.Graph, node: ir.Node, projections: Sequence[_Projection]) -> None:
    query = projections[0].output
    tape = Tape()
    weight = _initializer(graph, f"{query.name}.packed_weight", [p.weight for p in projections])
    packed = tape.op("MatMul", [projections[0].source, weight])
    biases = [p.bias for p in projections if p.bias is not None]
    if biases:
        packed = tape.op("Add", [packed, _initializer(graph, f"{query.name}.packed_bias", biases)])
    packed.type = query.type
    if query.shape is not None:
        width = sum(projection.weight.shape[1] for projection in projections)
        packed.shape = ir.Shape([*query.shape[:-1], width])
    order = list(graph)
    producers = [producer for p in projections if (producer := p.output.producer()) is not None]
    graph.insert_before(min(producers, key=order.index), tape.nodes)
    _use_packed(node, query, packed, projections[0].weight.shape[1])
    for projection in projections:
        _remove_unused(graph, projection.output)


def _projection(value: ir.Value | None) -> _Projection | None:
    node = value.producer() if value is not None else None
    if value is None or node is None:
        return None
    if node.op_type == "MatMul":
        return _product(node, None, value)
    if node.op_type != "Add":
        return None
    for product, bias in (node.inputs, reversed(node.inputs)):
        matmul = product.producer() if product is not None else None
        if matmul is not None and matmul.op_type == "MatMul" and bias is not None and bias.const_value is not None:
            return _product(matmul, bias.const_value.numpy(), value)
    return None


def _product(matmul: ir.Node, bias: Array | None, output: ir.Value) -> _Projection | None:
    source, weight = matmul.inputs
    if source is None or weight is None or weight.const_value is None:
        return None
    return _Projection(source, weight.const_value.numpy(), bias, output)


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

"""Attention weights that cost nothing unless they are asked for.

The fused operators keep their weights to themselves, and asking them for the scores makes them
write the scores of every row. So the weights are computed beside them, from the same query and
key, inside an `If`: no row asked for, no node of it runs. Only the asking rows are gathered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape

from regard_export.lowering.operands import constant

FLOAT = ir.DataType.FLOAT


def attention_weights(node: ir.Node, tape: Tape) -> Sequence[ir.Value]:
    """Lower `AttentionWeights(query, key, rows[, key_length[, total_length[, bias]]])` to standard operators.

    query [N, Q, W], key [R, H, T, D] with N a multiple of R, rows [A] out of N, to [A, H, Q, T], or to
    [A, 1, Q, T] if the node has a `reduction`.
    `key_length` [R] counts the keys that may be attended; beside a `total_length` it counts those
    before this step, and only the first `total_length` keys are looked at. `bias` is added to the
    scores of every row, or is one for each. If the node has a `query_width`, the query is packed with
    key and value and comes first. Whatever the precision of query and key, their weights are computed
    in float32: they are those that a fused kernel, which accumulates in float32, multiplied with.
    """
    rows = node.inputs[2]
    assert rows is not None
    asked = tape.op("Greater", [tape.op("Size", [rows]), constant(tape, np.int64(0))])
    weights = tape.op("If", [asked], {"then_branch": _softmax_of_scores(node), "else_branch": _nothing(node)})
    return [weights]


def _softmax_of_scores(node: ir.Node) -> ir.Graph:
    query, key, rows, length, total, bias = [*node.inputs, None, None, None][:6]
    assert query is not None
    heads, scale = node.attributes["num_heads"].as_int(), node.attributes["scale"].as_float()
    tape = Tape()
    queries = tape.op("Gather", [query, rows], {"axis": 0})
    if "query_width" in node.attributes:
        end = constant(tape, np.array([node.attributes["query_width"].as_int()]))
        queries = tape.op("Slice", [queries, constant(tape, np.array([0])), end, constant(tape, np.array([2]))])
    queries = tape.op("Reshape", [queries, constant(tape, np.array([0, 0, heads, -1]))])
    queries = tape.op("Transpose", [queries], {"perm": [0, 2, 1, 3]})
    requests = tape.op("Div", [rows, _rows_per_request(tape, query, key)])
    keys = tape.op("Gather", [key, requests], {"axis": 0})
    if total is not None:
        keys = first_keys(tape, keys, total, axis=2)
    if bias is not None:
        shared = bias.shape is not None and bias.shape[0] == 1
        bias = bias if shared else tape.op("Gather", [bias, rows], {"axis": 0})
        bias = bias if total is None else first_keys(tape, bias, total)
    attended = None
    if length is not None:
        lengths = tape.op("Gather", [length, requests], {"axis": 0})
        attended = attended_keys(tape, keys, lengths, of_cache=total is not None)
    if "causal" in node.attributes:
        attended = causal_keys(tape, keys, attended)
    if query.dtype != ir.DataType.FLOAT:
        queries, keys = (tape.op("Cast", [value], {"to": FLOAT}) for value in (queries, keys))
        bias = bias and tape.op("Cast", [bias], {"to": FLOAT})
    weights = masked_softmax(tape, queries, keys, bias, attended, np.float32(scale))
    if "reduction" in node.attributes:
        operator = {"mean": "ReduceMean", "max": "ReduceMax"}[node.attributes["reduction"].as_string()]
        weights = tape.op(operator, [weights, constant(tape, np.array([1]))], {"keepdims": 1})
    return _branch(tape, weights, f"{node.outputs[0].name}.weights")


def masked_softmax(
    tape: Tape,
    queries: ir.Value,
    keys: ir.Value,
    bias: ir.Value | None,
    attended: ir.Value | None,
    scale: np.floating[Any],
) -> ir.Value:
    """Return the weights [A, H, Q, T] of queries [A, H, Q, D] over keys [A, H, T, D], all of `scale`'s dtype.

    `attended`, which must broadcast to the weights, is false for the keys whose weight is 0.
    """
    scores = tape.op("MatMul", [queries, tape.op("Transpose", [keys], {"perm": [0, 1, 3, 2]})])
    if scale != 1:
        scores = tape.op("Mul", [scores, constant(tape, scale)])
    if bias is not None:
        scores = tape.op("Add", [scores, bias])
    if attended is not None:
        scores = tape.op("Where", [attended, scores, constant(tape, scale.dtype.type(-np.inf))])
    return tape.op("Softmax", [scores], {"axis": -1})


def first_keys(tape: Tape, value: ir.Value, total: ir.Value | None, axis: int = 3) -> ir.Value:
    """Cut the first `total` [] positions out of those of a cache."""
    end = tape.op("Reshape", [tape.op("Cast", [total], {"to": ir.DataType.INT64}), constant(tape, np.array([1]))])
    return tape.op("Slice", [value, constant(tape, np.array([0])), end, constant(tape, np.array([axis]))])


def attended_keys(tape: Tape, keys: ir.Value, lengths: ir.Value, *, of_cache: bool = False) -> ir.Value:
    """Return bool [A, 1, 1, T]: whether keys [A, H, T, D] lie within `lengths` [A]; of a cache, one more does."""
    positions = _places(tape, keys)
    limits = tape.op("Cast", [lengths], {"to": ir.DataType.INT64})
    limits = tape.op("Reshape", [limits, constant(tape, np.array([-1, 1, 1, 1]))])
    return tape.op("LessOrEqual" if of_cache else "Less", [positions, limits])


def causal_keys(tape: Tape, keys: ir.Value, attended: ir.Value | None) -> ir.Value:
    """Return which of the keys [A, H, T, D], as many as queries, lie up to a query's own place: bool [1, 1, T, T].

    With `attended`, that holds as well.
    """
    positions = _places(tape, keys)
    own = tape.op("Reshape", [positions, constant(tape, np.array([-1, 1]))])
    causal = tape.op("LessOrEqual", [positions, own])
    causal = tape.op("Unsqueeze", [causal, constant(tape, np.array([0, 1]))])
    return causal if attended is None else tape.op("And", [causal, attended])


def _places(tape: Tape, keys: ir.Value) -> ir.Value:
    """Return the numbers [T] of keys [A, H, T, D], from 0."""
    count = tape.op(
        "Reshape", [tape.op("Shape", [keys], {"start": 2, "end": 3}), constant(tape, np.array([], np.int64))]
    )
    return tape.op("Range", [constant(tape, np.int64(0)), count, constant(tape, np.int64(1))])


def _rows_per_request(tape: Tape, query: ir.Value | None, key: ir.Value | None) -> ir.Value:
    rows, requests = (tape.op("Shape", [value], {"start": 0, "end": 1}) for value in (query, key))
    return tape.op("Div", [rows, requests])


def _nothing(node: ir.Node) -> ir.Graph:
    heads = 1 if "reduction" in node.attributes else node.attributes["num_heads"].as_int()
    tape = Tape()
    empty = constant(tape, np.zeros((0, heads, 0, 0), np.float32))
    return _branch(tape, empty, f"{node.outputs[0].name}.nothing")


def _branch(tape: Tape, output: ir.Value, name: str) -> ir.Graph:
    """Close a branch of an `If`. A graph and its branches share one space of names."""
    for index, value in enumerate(value for node in tape.nodes for value in node.outputs):
        value.name = f"{name}.{index}"
    return ir.Graph([], [output], nodes=tape.nodes, name=name)

"""Attention weights that cost nothing unless they are asked for, where an operator doesn't give them.

`joined` and `steps` have those of CPUs whose operator does. The other fused operators give none, or
write those of every row whether anybody asks or not. So the weights are computed beside them, from
the same query and key, inside an `If`: no row asked for, no node of it runs. Only the asking rows are
gathered, and none where all rows ask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape

from regard_export.lowering.operands import BY_HEAD, constant, heads_of, int64, split_heads
from regard_export.lowering.pooling import with_pooling

FLOAT = ir.DataType.FLOAT
REDUCTIONS = {"mean": "ReduceMean", "max": "ReduceMax"}


def attention_weights(node: ir.Node, tape: Tape) -> Sequence[ir.Value]:
    """Lower one `AttentionWeights` to operators of ONNX."""
    return weights_of_asking(tape, [Scores.of(node)], f"{node.outputs[0].name}.")


def weights_of_asking(tape: Tape, layers: Sequence[Scores], name: str) -> Sequence[ir.Value]:
    """Return the weights of each layer; the branches that this takes have names that begin with `name`.

    The layers have the same rows, lengths and number of keys, so that who asks, and which keys are attended, is found
    out once.
    """
    first = layers[0]

    def some(tape: Tape) -> Sequence[ir.Value]:
        condition = all_ask(tape, first.rows, first.query)
        return choose(tape, condition, (whole, gathered), (f"{name}all", f"{name}gathered"))

    def whole(tape: Tape) -> Sequence[ir.Value]:
        attended = first.attended(tape, first.length)
        return [layer.reduced(tape, layer.of_all(tape, attended)) for layer in layers]

    def gathered(tape: Tape) -> Sequence[ir.Value]:
        requests = first.requests(tape)
        length = None if first.length is None else tape.op("Gather", [first.length, requests], {"axis": 0})
        attended = first.attended(tape, length)
        return [layer.reduced(tape, layer.of_rows(tape, requests, attended)) for layer in layers]

    def nothing(tape: Tape) -> Sequence[ir.Value]:
        return [no_weights(tape, layer.heads, layer.reduction) for layer in layers]

    biased = any(layer.of_hypotheses and layer.bias is not None for layer in layers)
    branches = gathered if biased else some, nothing
    return choose(tape, anybody_asks(tape, [first.rows]), branches, (f"{name}weights", f"{name}nothing"))


@dataclass(frozen=True)
class Scores:
    """What `AttentionWeights(query, key, rows[, key_length[, total_length[, bias]]])` is computed from.

    query [N, Q, W], key [R, h, T, D] with N a multiple of R and H of h, rows [A] out of N, to [A, H, Q, T], or to
    [A, 1, Q, T] if there is a `reduction`; with a `pooling`, Q and T are one more. `rows` ascend, and none is twice
    among them. `length` [R] counts the keys that may be attended; of a cache, it counts those before this step, and
    only the first `total` keys are looked at. `bias` is added to the scores of every row, or is one for each. If there
    is a `query_width`, the query is packed with key and value and comes first. Whatever the precision of query and
    key, their weights are computed in float32: they are those that a fused kernel, which accumulates in float32,
    multiplied with.
    """

    query: ir.Value
    key: ir.Value
    rows: ir.Value
    length: ir.Value | None
    total: ir.Value | None
    bias: ir.Value | None
    heads: int
    scale: float
    reduction: str | None
    pooling: str | None
    causal: bool
    query_width: int | None

    @classmethod
    def of(cls, node: ir.Node) -> Scores:
        """Read what a node says."""
        query, key, rows, length, total, bias = [*node.inputs, None, None, None][:6]
        assert query is not None and key is not None and rows is not None
        own = node.attributes
        return cls(
            query,
            key,
            rows,
            length,
            total,
            bias,
            heads=own["num_heads"].as_int(),
            scale=own["scale"].as_float(),
            reduction=own["reduction"].as_string() if "reduction" in own else None,
            pooling=own["pooling"].as_string() if "pooling" in own else None,
            causal="causal" in own,
            query_width=own["query_width"].as_int() if "query_width" in own else None,
        )

    @property
    def of_hypotheses(self) -> bool:
        """Whether several queries, each a row of its own, may share the keys of a request."""
        return self.total is None and self.query.shape is not None and self.query.shape[1] == 1

    def requests(self, tape: Tape) -> ir.Value:
        """Return the requests [A] out of R whose keys the asking rows attend."""
        if self.total is not None:
            return self.rows
        rows, requests = (tape.op("Shape", [value], {"start": 0, "end": 1}) for value in (self.query, self.key))
        return tape.op("Div", [self.rows, tape.op("Div", [rows, requests])])

    def attended(self, tape: Tape, length: ir.Value | None) -> ir.Value | None:
        """Return which keys may be attended, so that it broadcasts to weights, by the lengths [A] of some requests."""
        attended = None if length is None else self._within(tape, length)
        return causal_keys(tape, self.key, attended) if self.causal else attended

    def _within(self, tape: Tape, length: ir.Value) -> ir.Value:
        if self.total is None:
            return attended_keys(tape, self.key, length)
        end = tape.op("Cast", [self.total], {"to": ir.DataType.INT64})
        places = tape.op("Range", [constant(tape, np.int64(0)), end, constant(tape, np.int64(1))])
        return tape.op("LessOrEqual", [places, _by_row(tape, length)])

    def of_rows(self, tape: Tape, requests: ir.Value, attended: ir.Value | None) -> ir.Value:
        """Return the weights [A, H, Q, T] of the asking rows."""
        bias = self.bias
        if bias is not None and not (bias.shape is not None and bias.shape[0] == 1):
            bias = tape.op("Gather", [bias, self.rows], {"axis": 0})
        query = tape.op("Gather", [self.query, self.rows], {"axis": 0})
        key = tape.op("Gather", [self.key, requests], {"axis": 0})
        return self._weights(tape, self._queries(tape, query), key, bias, attended)

    def of_all(self, tape: Tape, attended: ir.Value | None) -> ir.Value:
        """Return the weights [N, H, Q, T] of all rows; with hypotheses there may be no bias."""
        if not self.of_hypotheses:
            return self._weights(tape, self._queries(tape, self.query), self.key, self.bias, attended)
        assert self.bias is None
        requests = tape.op("Shape", [self.key], {"start": 0, "end": 1})
        size = tape.op("Shape", [self.key], {"start": 3, "end": 4})
        shape = tape.op("Concat", [requests, int64(tape, [-1, self.heads]), size], {"axis": 0})
        queries = tape.op("Transpose", [tape.op("Reshape", [self._unpacked(tape, self.query), shape])], BY_HEAD)
        of_requests = self._weights(tape, queries, self.key, None, attended)
        return tape.op("Reshape", [tape.op("Transpose", [of_requests], BY_HEAD), int64(tape, [-1, self.heads, 1, 0])])

    def reduced(self, tape: Tape, weights: ir.Value) -> ir.Value:
        """Put the heads of weights together, if that is asked for, and give a query that pools its position."""
        return with_pooling(tape, reduce_heads(tape, weights, self.reduction), self.pooling, self.key)

    def _queries(self, tape: Tape, query: ir.Value) -> ir.Value:
        return split_heads(tape, self._unpacked(tape, query), self.heads)

    def _unpacked(self, tape: Tape, query: ir.Value) -> ir.Value:
        if self.query_width is None:
            return query
        return tape.op("Slice", [query, int64(tape, [0]), int64(tape, [self.query_width]), int64(tape, [2])])

    def _weights(
        self, tape: Tape, queries: ir.Value, keys: ir.Value, bias: ir.Value | None, attended: ir.Value | None
    ) -> ir.Value:
        if self.query.dtype != FLOAT:
            queries, keys = (tape.op("Cast", [value], {"to": FLOAT}) for value in (queries, keys))
            bias = bias and tape.op("Cast", [bias], {"to": FLOAT})
        products = self._products(tape, queries, keys)
        return masked_softmax(tape, products, bias, attended, np.float32(self.scale), self.total)

    def _products(self, tape: Tape, queries: ir.Value, keys: ir.Value) -> ir.Value:
        """Return the products of queries and keys; those of heads that share the keys of a cache are one head's."""
        key_heads = self.heads if self.total is None else heads_of(self.key)
        if key_heads == self.heads:
            return dot_products(tape, queries, keys)
        together = tape.op("Reshape", [queries, int64(tape, [0, key_heads, -1, 0])])
        return tape.op("Reshape", [dot_products(tape, together, keys), int64(tape, [0, self.heads, -1, 0])])


def taps_of(attention: ir.Node) -> list[ir.Node]:
    """Return the `AttentionWeights` of an attention's query and keys, those of the whole cache if it has one."""
    query = attention.inputs[0]
    key = attention.outputs[1] if attention.op_type == "CachedAttention" else attention.inputs[1]
    assert query is not None
    readers = [user for user, index in query.uses() if user.op_type == "AttentionWeights" and index == 0]
    return [reader for reader in readers if reader.inputs[1] is key]


def no_weights(tape: Tape, heads: int, reduction: str | None) -> ir.Value:
    """Return the weights of no row.

    ONNX' inference takes the number of keys of `Attention`'s weights, if it doesn't know it, for 0. With another number
    in the other branch, it says nothing of what an `If` gives.
    """
    return constant(tape, np.zeros((0, 1 if reduction else heads, 1, 1), np.float32))


def reduce_heads(tape: Tape, weights: ir.Value, reduction: str | None) -> ir.Value:
    """Return the mean or the maximum [A, 1, Q, T] of the heads of [A, H, Q, T], or all of them."""
    if reduction is None:
        return weights
    return tape.op(REDUCTIONS[reduction], [weights, int64(tape, [1])], {"keepdims": 1})


def dot_products(tape: Tape, queries: ir.Value, keys: ir.Value) -> ir.Value:
    """Return those [A, H, Q, T] of queries [A, H, Q, D] and keys [A, H, T, D]."""
    return tape.op("MatMul", [queries, tape.op("Transpose", [keys], {"perm": [0, 1, 3, 2]})])


def masked_softmax(
    tape: Tape,
    products: ir.Value,
    bias: ir.Value | None,
    attended: ir.Value | None,
    scale: np.floating[Any],
    total: ir.Value | None = None,
) -> ir.Value:
    """Return the weights [A, H, Q, T] of queries by their products with the keys, all of `scale`'s dtype.

    `attended`, which must broadcast to the weights, is false for the keys whose weight is 0. Of a cache, only
    the first `total` [] keys are looked at, and `attended` speaks of those: scores are cut, which are fewer than
    what keys are made of.
    """
    scores = products
    if scale != 1:
        scores = tape.op("Mul", [scores, constant(tape, scale)])
    if total is not None:
        scores = first_keys(tape, scores, total)
        bias = bias and first_keys(tape, bias, total)
    if bias is not None:
        scores = tape.op("Add", [scores, bias])
    if attended is not None:
        scores = tape.op("Where", [attended, scores, constant(tape, scale.dtype.type(-np.inf))])
    return tape.op("Softmax", [scores], {"axis": -1})


def first_keys(tape: Tape, value: ir.Value, total: ir.Value | None) -> ir.Value:
    """Cut what belongs to the first `total` [] positions of a cache out of [.., .., .., P]."""
    end = tape.op("Reshape", [tape.op("Cast", [total], {"to": ir.DataType.INT64}), int64(tape, [1])])
    return tape.op("Slice", [value, int64(tape, [0]), end, int64(tape, [3])])


def attended_keys(tape: Tape, keys: ir.Value, lengths: ir.Value) -> ir.Value:
    """Return bool [A, 1, 1, T]: whether keys [A, H, T, D] lie within `lengths` [A]."""
    return tape.op("Less", [_places(tape, keys), _by_row(tape, lengths)])


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


def _by_row(tape: Tape, lengths: ir.Value) -> ir.Value:
    """Return the lengths [A] of rows as [A, 1, 1, 1]."""
    return tape.op("Reshape", [tape.op("Cast", [lengths], {"to": ir.DataType.INT64}), int64(tape, [-1, 1, 1, 1])])


def anybody_asks(tape: Tape, rows: Sequence[ir.Value]) -> ir.Value:
    """Return whether any of several `rows` [A] holds a row."""
    asking = tape.op("Concat", rows, {"axis": 0}) if len(rows) > 1 else rows[0]
    return tape.op("Greater", [tape.op("Size", [asking]), constant(tape, np.int64(0))])


def all_ask(tape: Tape, rows: ir.Value, query: ir.Value) -> ir.Value:
    """Return whether `rows`, ascending, are all rows of `query` [N, Q, W]."""
    count = tape.op("Shape", [query], {"start": 0, "end": 1})
    return tape.op("Equal", [tape.op("Size", [rows]), tape.op("Reshape", [count, int64(tape, [])])])


Branch = Callable[[Tape], Sequence[ir.Value]]


def choose(tape: Tape, condition: ir.Value, branches: tuple[Branch, Branch], names: tuple[str, str]) -> list[ir.Value]:
    """Return what the first branch gives if `condition` holds, and else what the second does; `names` name them."""
    first, second = (_graph(branch, name) for branch, name in zip(branches, names, strict=True))
    outputs = tape.op_multi_out(
        "If", [condition], {"then_branch": first, "else_branch": second}, num_outputs=len(first.outputs)
    )
    return list(outputs)


def _graph(branch: Branch, name: str) -> ir.Graph:
    """Write one branch of an `If`. A graph and its branches share one space of names."""
    tape = Tape()
    outputs = branch(tape)
    for index, value in enumerate(value for node in tape.nodes for value in node.outputs):
        if value.name != "":  # an output that nobody wants has no name
            value.name = f"{name}.{index}"
    return ir.Graph([], outputs, nodes=tape.nodes, name=name)

"""The inputs by which a request changes its attention, given to a copy of a graph that knows nothing of them.

The copy is of a graph that is simplified and not yet lowered, so that an intervened graph has the
operators of its target, and every weight by the name that it has in the plain one. What it adds, for
taps of one kind, is in the contract of `regard.manifest`: a bias is gathered for every head and added
to the scores, of the attention and of its taps alike, and a gate multiplies what each head gives, before
the heads are projected together.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape

from regard.manifest import TapSpec
from regard_export.attention import DOMAIN
from regard_export.errors import ExportError
from regard_export.lowering.operands import BY_HEAD, constant, int64

Shape = list[int | str | ir.SymbolicDim]
BIAS_INPUT = {"Attention": 4, "CrossAttention": 4, "AttentionWeights": 5}
"""Where each operator of a graph takes its bias; a cache has only gates."""


def admit_interventions(model: ir.Model, taps: Sequence[TapSpec]) -> ir.Model:
    """Return a copy of `model` that reads interventions in the attention of each of its `taps`.

    Raises `ExportError` if there are none, or if those of one kind are unlike: they could not share inputs.
    """
    if not taps:
        raise ExportError("none of its layers has attention between all positions; leave --interventions out")
    intervened = model.clone()
    by_name = {value.name: value for value in intervened.graph.outputs}
    for kind in dict.fromkeys(tap.kind for tap in taps):
        own = [tap for tap in taps if tap.kind == kind]
        sites = [_Site(intervened.graph, by_name[tap.output]) for tap in own]
        if len({(tap.heads, site.keys) for tap, site in zip(own, sites, strict=True)}) > 1:
            raise ExportError(
                f"the layers of its {own[0].stack} have other heads or positions than one another, so that no "
                "intervention could name them together; leave --interventions out"
            )
        _Inputs(intervened.graph, kind, own, sites).connect()
    return intervened


class _Site:
    """One attention and its tap: where an intervention takes effect."""

    def __init__(self, graph: ir.Graph, weights: ir.Value) -> None:
        tap = weights.producer()
        assert tap is not None and tap.inputs[1] is not None and weights.shape is not None
        self.taps = [node for node, _ in tap.inputs[1].uses() if node.op_type == tap.op_type]
        """Of one query and one key: the heads, and what they are put together to."""
        self.keys = weights.shape[3]
        self.attention = attention_of(tap)

    @property
    def cached(self) -> bool:
        """Whether its keys are those of a cache."""
        return self.attention.op_type == "CachedAttention"


def attention_of(tap: ir.Node) -> ir.Node:
    """Return the attention with the query and key of a tap; that of a cache makes the keys itself."""
    query, key = tap.inputs[:2]
    assert key is not None
    producer = key.producer()
    if producer is not None and producer.op_type == "CachedAttention":
        return producer
    return next(
        node
        for node, index in key.uses()
        if node.domain == DOMAIN and node.op_type != tap.op_type and index == 1 and node.inputs[0] is query
    )


class _Inputs:
    """The inputs of one kind of attention, and how they reach each layer."""

    def __init__(self, graph: ir.Graph, kind: str, taps: Sequence[TapSpec], sites: Sequence[_Site]) -> None:
        self._graph = graph
        self._heads = taps[0].heads
        self._sites = sites
        self._cached = sites[0].cached
        batch = "N" if taps[0].graph == "step" else "R"
        of_heads: Shape = [len(taps), batch, self._heads]
        self._gates = self._add(f"{kind}_head_gate", ir.DataType.FLOAT, of_heads)
        if not self._cached:
            queries = 1 if kind == "cross" else sites[0].keys
            edges: Shape = ["B", queries, sites[0].keys]
            self._biases = self._add(f"{kind}_bias", ir.DataType.FLOAT, edges)
            self._index = self._add(f"{kind}_bias_index", ir.DataType.INT64, of_heads)

    def _add(self, name: str, dtype: ir.DataType, shape: Shape) -> ir.Value:
        value = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype))
        self._graph.inputs.append(value)
        return value

    def connect(self) -> None:
        """Let every layer read its part of them."""
        for layer, site in enumerate(self._sites):
            if not self._cached:
                self._bias(layer, site)
            self._gate(layer, site)

    def _bias(self, layer: int, site: _Site) -> None:
        """Add every head's bias [R, H, Q, K], or [N, H, 1, K] of a step, to what the scores get anyway."""
        tape = Tape()
        at = tape.op("Gather", [self._index, constant(tape, np.int64(layer))], {"axis": 0})
        bias = tape.op("Gather", [self._biases, at], {"axis": 0})
        query = site.attention.inputs[0]
        assert query is not None and query.dtype is not None
        if query.dtype != ir.DataType.FLOAT:
            bias = tape.op("Cast", [bias], {"to": query.dtype})
        of_attention = bias
        if site.attention.op_type == "CrossAttention":
            of_attention = _by_request(tape, bias, site.attention.inputs[1], self._heads)
        for node, own in ((site.attention, of_attention), *((tap, bias) for tap in site.taps)):
            _add_bias(tape, node, own)
        self._graph.insert_before(site.attention, tape.nodes)

    def _gate(self, layer: int, site: _Site) -> None:
        """Multiply what each head gives, in [R, S, H * D]."""
        output = site.attention.outputs[0]
        assert output.shape is not None
        width = output.shape[2]
        assert isinstance(width, int)
        users = list(output.uses())
        tape = Tape()
        gates = tape.op("Gather", [self._gates, constant(tape, np.int64(layer))], {"axis": 0})
        gates = tape.op("Reshape", [gates, int64(tape, [0, 1, -1, 1])])
        gates = tape.op("Expand", [gates, int64(tape, [1, 1, 1, width // self._heads])])
        gates = tape.op("Reshape", [gates, int64(tape, [0, 1, width])])
        gates = tape.op("CastLike", [gates, output])
        gated = tape.op("Mul", [output, gates])
        gated.type, gated.shape = output.type, output.shape
        for user, index in users:
            user.replace_input_with(index, gated)
        self._graph.insert_after(site.attention, tape.nodes)


def _by_request(tape: Tape, bias: ir.Value, key: ir.Value | None, heads: int) -> ir.Value:
    """Make the k hypotheses of a request the queries of one row: [R * k, H, 1, S] as [R, H, k, S]."""
    requests = tape.op("Shape", [key], {"start": 0, "end": 1})
    positions = tape.op("Shape", [bias], {"start": 3, "end": 4})
    shape = tape.op("Concat", [requests, int64(tape, [-1, heads]), positions], {"axis": 0})
    return tape.op("Transpose", [tape.op("Reshape", [bias, shape])], BY_HEAD)


def _add_bias(tape: Tape, node: ir.Node, bias: ir.Value) -> None:
    index = BIAS_INPUT[node.op_type]
    node.resize_inputs(max(len(node.inputs), index + 1))
    given = node.inputs[index]
    node.replace_input_with(index, bias if given is None else tape.op("Add", [given, bias]))

"""Attention weights of all layers of a decoding step, from one branch.

A step is short, and to enter a branch takes as long as a small operator does. So what nobody asks for is passed over
once for all layers. On CPUs, attention of one query a row gives its weights whoever asks (`cpu.weigh_one_query`), and
the branch only picks out those of the asking rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape

from regard_export.attention import DOMAIN
from regard_export.lowering import hypotheses
from regard_export.lowering.operands import constant
from regard_export.lowering.weights import (
    Scores,
    all_ask,
    anybody_asks,
    choose,
    no_weights,
    taps_of,
    weights_of_asking,
)


def weigh_together(model: ir.Model) -> None:
    """Lower, in place, all `AttentionWeights` of one query a row that have the same rows and lengths to one `If`."""
    alike: dict[tuple[ir.Value | None, ...], list[ir.Node]] = {}
    for node in model.graph:
        if node.domain == DOMAIN and node.op_type == "AttentionWeights":
            one = Scores.of(node)
            if one.query.shape is not None and one.query.shape[1] == 1:
                alike.setdefault((one.rows, one.length, one.total), []).append(node)
    for nodes in alike.values():
        tape = Tape()
        new = weights_of_asking(tape, [Scores.of(node) for node in nodes], f"{nodes[0].outputs[0].name}.")
        _replace(model.graph, nodes, tape, new)


def pick_together(model: ir.Model) -> None:
    """Let, in place, attentions of a step give their weights, and one `If` pick out those of the rows that ask.

    They are the attention's last output then. Of `CachedAttention`, what is beyond a row's own keys means nothing.
    `CrossAttention` gives them where each request has one hypothesis, or else if its last input says so, which is
    whether any of all the rows of its taps asks: `AnybodyAsks(rows, ..)`. A biased attention of hypotheses stays as it
    is: its tap has another bias.
    """
    alike: dict[tuple[ir.Value | None, ...], list[tuple[ir.Node, ir.Value]]] = {}
    anybody: dict[tuple[ir.Value, ...], ir.Value] = {}
    for node in list(model.graph):
        if node.domain != DOMAIN or node.op_type not in ("CachedAttention", "CrossAttention"):
            continue
        cached = node.op_type == "CachedAttention"
        taps = taps_of(node)
        if not taps or (not cached and Scores.of(taps[0]).bias is not None):
            continue
        inputs = list(node.inputs)
        if not cached:
            rows = tuple(dict.fromkeys(Scores.of(tap).rows for tap in taps))
            if rows not in anybody:
                asks = ir.node("AnybodyAsks", rows, domain=DOMAIN)
                model.graph.insert_before(node, asks)
                anybody[rows] = asks.outputs[0]
            inputs += [None] * (hypotheses.INPUTS - 1 - len(inputs))
            inputs.append(anybody[rows])
        weights = _with_weights(model.graph, node, inputs)
        for tap in taps:
            one = Scores.of(tap)
            alike.setdefault((one.rows, one.length, one.total), []).append((tap, weights))
    for layers in alike.values():
        tape, picked = Tape(), [tap for tap, _ in layers]
        scores = [Scores.of(tap) for tap in picked]
        new = _picked(tape, scores, [weights for _, weights in layers], f"{picked[0].outputs[0].name}.")
        _replace(model.graph, picked, tape, new)


def _with_weights(graph: ir.Graph, attention: ir.Node, inputs: Sequence[ir.Value | None]) -> ir.Value:
    """Give an attention these inputs, and its weights as one more output, which is returned."""
    old, weights = list(attention.outputs), ir.Value()
    new = [ir.Value(name=one.name, type=one.type, shape=one.shape) for one in old]
    widened = ir.node(
        attention.op_type,
        inputs,
        {name: attribute.value for name, attribute in attention.attributes.items()},
        domain=DOMAIN,
        outputs=[*new, weights],
    )
    ir.convenience.replace_nodes_and_values(graph, attention, [attention], [widened], old, new)
    return weights


def _picked(tape: Tape, layers: Sequence[Scores], weights: Sequence[ir.Value], name: str) -> Sequence[ir.Value]:
    """Return the weights of the asking rows of each layer, 0 for the keys that they don't attend."""
    first = layers[0]

    def asked(tape: Tape) -> Sequence[ir.Value]:
        attended = None
        if first.length is not None:
            length = tape.op("Gather", [first.length, first.requests(tape)], {"axis": 0})
            attended = first.attended(tape, length)

        def whole(tape: Tape) -> Sequence[ir.Value]:
            if attended is None:  # a branch can't give as its own what was made outside of it
                return [tape.op("Identity", [one]) for one in weights]
            return [within(tape, one) for one in weights]

        def gathered(tape: Tape) -> Sequence[ir.Value]:
            return [within(tape, tape.op("Gather", [one, first.rows], {"axis": 0})) for one in weights]

        def within(tape: Tape, own: ir.Value) -> ir.Value:
            return own if attended is None else tape.op("Where", [attended, own, constant(tape, np.float32(0))])

        condition = all_ask(tape, first.rows, first.query)
        return choose(tape, condition, (whole, gathered), (f"{name}all", f"{name}gathered"))

    def nothing(tape: Tape) -> Sequence[ir.Value]:
        return [no_weights(tape, layer.heads, None) for layer in layers]

    return choose(tape, anybody_asks(tape, [first.rows]), (asked, nothing), (f"{name}asked", f"{name}nothing"))


def _replace(graph: ir.Graph, taps: Sequence[ir.Node], tape: Tape, new: Sequence[ir.Value]) -> None:
    old = [tap.outputs[0] for tap in taps]
    ir.convenience.replace_nodes_and_values(graph, taps[-1], taps, tape.nodes, old, new)
    graph.sort()  # what reads the weights of the first layers comes after those of the last now


def any_row_asks(node: ir.Node, tape: Tape) -> Sequence[ir.Value]:
    """Tell whether any row asks."""
    return [anybody_asks(tape, [rows for rows in node.inputs if rows is not None])]


RULES: Mapping[str, Callable[[ir.Node, Tape], Sequence[ir.Value]]] = {"AnybodyAsks": any_row_asks}

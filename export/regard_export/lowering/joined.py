"""Attention within a source and its weights from one computation, where any row of a batch asks for them.

Weights that are computed beside an attention do its work once more. ONNX' own `Attention` has them at hand:
writing those of all rows costs little more than not writing them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.tape import Tape

from regard_export.attention import DOMAIN
from regard_export.lowering import cpu
from regard_export.lowering.operands import unsplit
from regard_export.lowering.pooling import with_pooling
from regard_export.lowering.weights import Branch, all_ask, anybody_asks, choose, no_weights, reduce_heads, taps_of

INPUTS = 5
"""The most inputs of an `Attention`."""


def join_taps(model: ir.Model) -> None:
    """Make an `Attention` and the `AttentionWeights` of its query and key one node, in place.

    `AttentionWithTaps(query, key, value, key_length, bias, rows, all, rows, all, ..)` gives the attention's output,
    then the weights of each `rows`, whose heads are put together as `reductions` say, with a position for a query that
    pools as `poolings` say. Whether `rows` are `all` rows,
    an `AllAsk(rows, query)` tells all layers. A causal attention stays as it is.
    """
    told: dict[tuple[ir.Value, object], ir.Value] = {}
    for node in list(model.graph):
        if node.domain != DOMAIN or node.op_type != "Attention" or "causal" in node.attributes:
            continue
        inputs = [*node.inputs, None, None][:INPUTS]
        taps = taps_of(node)
        if not taps:
            continue
        told_of_taps = {f"{name}s": [_word(tap, name) for tap in taps] for name in ("reduction", "pooling")}
        asking = [one for tap in taps for one in _asking(model.graph, node, tap, told)]
        old = [node.outputs[0], *(tap.outputs[0] for tap in taps)]
        new = [ir.Value(name=one.name, type=one.type, shape=one.shape) for one in old]
        joined = ir.node(
            "AttentionWithTaps",
            [*inputs, *asking],
            {name: node.attributes[name].value for name in ("num_heads", "scale")} | told_of_taps,
            domain=DOMAIN,
            outputs=new,
        )
        ir.convenience.replace_nodes_and_values(model.graph, node, [node, *taps], [joined], old, new)


def _word(tap: ir.Node, name: str) -> str:
    return tap.attributes[name].as_string() if name in tap.attributes else ""


def _asking(
    graph: ir.Graph, attention: ir.Node, tap: ir.Node, told: dict[tuple[ir.Value, object], ir.Value]
) -> tuple[ir.Value, ir.Value]:
    """Return the rows that ask, and whether they are all; `told` holds what layers before have found out of that."""
    query, rows = tap.inputs[0], tap.inputs[2]
    assert query is not None and query.shape is not None and rows is not None
    same = rows, query.shape[0]
    if same not in told:
        node = ir.node("AllAsk", [rows, query], domain=DOMAIN)
        graph.insert_before(attention, node)
        told[same] = node.outputs[0]
    return rows, told[same]


def attention_with_taps(node: ir.Node, tape: Tape) -> Sequence[ir.Value]:
    """Attend, with the weights only if any row asks for them."""
    query, key, value, *rest = node.inputs[:INPUTS]
    asking = [one for one in node.inputs[INPUTS:] if one is not None]
    assert query is not None and key is not None and value is not None
    site = _Site(
        [query, *unsplit(key, value), *rest],
        cpu.attributes_of(node),
        asking[::2],
        asking[1::2],
        [reduction or None for reduction in node.attributes["reductions"].as_strings()],
        [pooling or None for pooling in node.attributes["poolings"].as_strings()],
        key,
    )
    name = node.outputs[0].name
    asked = anybody_asks(tape, site.rows)
    return choose(tape, asked, (site.asked_by_all(0, f"{name}."), site.asked_by_nobody), (f"{name}.if", f"{name}.not"))


@dataclass(frozen=True)
class _Site:
    """One attention: what it reads, and who asks for its weights."""

    inputs: Sequence[ir.Value | None]
    attributes: Mapping[str, int | float]
    rows: Sequence[ir.Value]
    all_ask: Sequence[ir.Value]
    reductions: Sequence[str | None]
    poolings: Sequence[str | None]
    key: ir.Value
    """The keys by head, [R, H, T, D]."""

    def asked_by_all(self, tap: int, name: str) -> Branch:
        """Return what happens if no tap before `tap` is asked for by all rows."""

        def either(tape: Tape) -> Sequence[ir.Value]:
            names = f"{name}all.{tap}", f"{name}some.{tap}"
            return choose(tape, self.all_ask[tap], (self._weighed(whole=tap), self.asked_by_all(tap + 1, name)), names)

        return either if tap < len(self.rows) else self._weighed(whole=None)

    def _weighed(self, whole: int | None) -> Branch:
        """Return how the asking rows get their weights; all rows ask for those of the tap `whole`, if there is one."""

        def both(tape: Tape) -> Sequence[ir.Value]:
            output, weights = cpu.attend_and_weigh(tape, self.inputs, self.attributes)
            found = []
            asked = zip(self.rows, self.reductions, self.poolings, strict=True)
            for tap, (rows, reduction, pooling) in enumerate(asked):
                own = weights if tap == whole else tape.op("Gather", [weights, rows], {"axis": 0})
                found.append(with_pooling(tape, reduce_heads(tape, own, reduction), pooling, self.key))
            return [output, *found]

        return both

    def asked_by_nobody(self, tape: Tape) -> Sequence[ir.Value]:
        """Attend without giving weights."""
        heads = int(self.attributes["num_heads"])
        output = cpu.attend_within(tape, self.inputs, self.attributes)
        return [output, *(no_weights(tape, heads, reduction) for reduction in self.reductions)]


def every_row_asks(node: ir.Node, tape: Tape) -> Sequence[ir.Value]:
    """Tell whether all rows of a batch ask."""
    rows, query = node.inputs
    assert rows is not None and query is not None
    return [all_ask(tape, rows, query)]


RULES: Mapping[str, Callable[[ir.Node, Tape], Sequence[ir.Value]]] = {
    "AttentionWithTaps": attention_with_taps,
    "AllAsk": every_row_asks,
}

"""Attention and its weights from one computation, where any row of a batch asks for them.

Weights that are computed beside an attention do its work once more. ONNX' own `Attention` has them at hand, and so
has `GroupQueryAttention`: writing those of all rows costs little more than not writing them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape

from regard_export.attention import DOMAIN
from regard_export.lowering import cpu, hypotheses
from regard_export.lowering.hypotheses import TOLD
from regard_export.lowering.operands import constant, unsplit
from regard_export.lowering.weights import (
    Branch,
    Scores,
    all_ask,
    anybody_asks,
    attended_keys,
    attended_keys_of_cache,
    choose,
    no_weights,
    reduce_heads,
)

INPUTS = {"Attention": TOLD.start, "CrossAttention": TOLD.stop, "CachedAttention": 8}
"""The attentions that are joined with their weights, and how many inputs each has at most."""


def join_taps(model: ir.Model) -> None:
    """Make an attention and the `AttentionWeights` of its query and key one node, in place.

    `AttentionWithTaps(.., anybody, attended, rows, all, rows, all, ..)` has the inputs of the attention `of`, and gives
    its outputs, then the weights of each `rows`, whose heads are put together as `reductions` say. Who asks is found
    out once for all layers: `Asking(query, rows, rows, ..)` tells whether anybody does, and whether each `rows` are
    all. So is which keys a step attends: `AttendedKeys(anybody, ..)`, the rest as `AttentionWeights` has it. A causal
    attention stays as it is, and so does a biased one of hypotheses, whose tap has another bias.
    """
    shared = _Shared(model.graph)
    for node in list(model.graph):
        if node.domain != DOMAIN or node.op_type not in INPUTS or "causal" in node.attributes:
            continue
        inputs = [*node.inputs, *[None] * INPUTS[node.op_type]][: INPUTS[node.op_type]]
        taps = _taps_of(node)
        if not taps or (node.op_type == "CrossAttention" and inputs[4] is not None):
            continue
        reductions = [tap.attributes["reduction"].as_string() if "reduction" in tap.attributes else "" for tap in taps]
        old = [*node.outputs, *(tap.outputs[0] for tap in taps)]
        new = [ir.Value(name=one.name, type=one.type, shape=one.shape) for one in old]
        joined = ir.node(
            "AttentionWithTaps",
            [*inputs, *shared.told_of(node, taps)],
            {name: node.attributes[name].value for name in ("num_heads", "scale")}
            | {"of": node.op_type, "reductions": reductions},
            domain=DOMAIN,
            outputs=new,
        )
        ir.convenience.replace_nodes_and_values(model.graph, node, [node, *taps], [joined], old, new)


def _taps_of(attention: ir.Node) -> list[ir.Node]:
    query = attention.inputs[0]
    key = attention.outputs[1] if attention.op_type == "CachedAttention" else attention.inputs[1]
    assert query is not None
    readers = [user for user, index in query.uses() if user.op_type == "AttentionWeights" and index == 0]
    return [reader for reader in readers if reader.inputs[1] is key]


class _Shared:
    """What several layers of a graph are told, found out before the first of them."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._asking: dict[object, Sequence[ir.Value]] = {}
        self._attended: dict[object, ir.Value] = {}

    def told_of(self, attention: ir.Node, taps: Sequence[ir.Node]) -> list[ir.Value | None]:
        """Return what an attention with these taps has for inputs beside its own."""
        query, rows = taps[0].inputs[0], [tap.inputs[2] for tap in taps]
        assert query is not None and query.shape is not None
        same = query.shape[0], *rows
        if same not in self._asking:
            node = ir.node("Asking", [query, *rows], domain=DOMAIN, num_outputs=1 + len(rows))
            self._graph.insert_before(attention, node)
            self._asking[same] = node.outputs
        anybody, *all_ask = self._asking[same]
        attended = None if attention.op_type == "Attention" else self._attended_keys(attention, taps[0], anybody)
        return [anybody, attended, *(value for pair in zip(rows, all_ask, strict=True) for value in pair)]

    def _attended_keys(self, attention: ir.Node, tap: ir.Node, anybody: ir.Value) -> ir.Value | None:
        one = Scores.of(tap)
        if one.length is None:
            return None
        same = anybody, one.length, one.total
        if same not in self._attended:
            key = None if one.total is not None else one.key  # of a cache, `total` tells the number of keys
            node = ir.node("AttendedKeys", [anybody, one.length, one.total, key], domain=DOMAIN)
            self._graph.insert_before(attention, node)
            self._attended[same] = node.outputs[0]
        return self._attended[same]


def attention_with_taps(node: ir.Node, tape: Tape) -> Sequence[ir.Value]:
    """Attend, with the weights only if any row asks for them."""
    of = node.attributes["of"].as_string()
    inputs, (anybody, attended, *asking) = node.inputs[: INPUTS[of]], node.inputs[INPUTS[of] :]
    assert anybody is not None
    site = _Site(
        of,
        _unsplit(inputs) if of == "Attention" else inputs,
        attended,
        cpu.attributes_of(node),
        [one for one in asking[::2] if one is not None],
        [one for one in asking[1::2] if one is not None],
        [reduction or None for reduction in node.attributes["reductions"].as_strings()],
    )
    name = node.outputs[0].name
    branches = site.asked_by_all(0, f"{name}."), site.asked_by_nobody(f"{name}.not.")
    return choose(tape, anybody, branches, (f"{name}.if", f"{name}.not"))


def _unsplit(inputs: Sequence[ir.Value | None]) -> list[ir.Value | None]:
    query, key, value, *rest = inputs
    assert key is not None and value is not None
    return [query, *unsplit(key, value), *rest]


@dataclass(frozen=True)
class _Site:
    """One attention: what it reads, and who asks for its weights."""

    of: str
    inputs: Sequence[ir.Value | None]
    attended: ir.Value | None
    attributes: Mapping[str, int | float]
    rows: Sequence[ir.Value]
    all_ask: Sequence[ir.Value]
    reductions: Sequence[str | None]

    def asked_by_all(self, tap: int, name: str) -> Branch:
        """Return what happens if no tap before `tap` is asked for by all rows."""

        def either(tape: Tape) -> Sequence[ir.Value]:
            names = f"{name}all.{tap}", f"{name}some.{tap}"
            all_rows, some = self._weighed(tap, f"{names[0]}."), self.asked_by_all(tap + 1, name)
            return choose(tape, self.all_ask[tap], (all_rows, some), names)

        return either if tap < len(self.rows) else self._weighed(None, f"{name}gathered.")

    def _weighed(self, whole: int | None, name: str) -> Branch:
        """Return how the asking rows get their weights; all rows ask for those of the tap `whole`, if there is one."""

        def both(tape: Tape) -> Sequence[ir.Value]:
            *outputs, weights = self._attend_and_weigh(tape, name)
            for tap, (rows, reduction) in enumerate(zip(self.rows, self.reductions, strict=True)):
                own = weights if tap == whole else tape.op("Gather", [weights, rows], {"axis": 0})
                outputs.append(reduce_heads(tape, own, reduction))
            return outputs

        return both

    def asked_by_nobody(self, name: str) -> Branch:
        """Return how to attend without giving weights."""

        def alone(tape: Tape) -> Sequence[ir.Value]:
            heads = int(self.attributes["num_heads"])
            return [*self._attend(tape, name), *(no_weights(tape, heads, reduction) for reduction in self.reductions)]

        return alone

    def _attend(self, tape: Tape, name: str) -> Sequence[ir.Value]:
        """Give the attention's outputs; branches of this have names that begin with `name`."""
        match self.of:
            case "CachedAttention":
                return cpu.append_and_attend(tape, self.inputs, self.attributes)
            case "CrossAttention":
                return [hypotheses.attend(tape, self.inputs, self.attributes, name)]
            case _:
                return [cpu.attend_within(tape, self.inputs, self.attributes)]

    def _attend_and_weigh(self, tape: Tape, name: str) -> Sequence[ir.Value]:
        """Give the weights of all rows as well, behind the attention's outputs."""
        match self.of:
            case "CachedAttention":
                return cpu.append_and_weigh(tape, self.inputs, self.attributes, self.attended)
            case "CrossAttention":
                return hypotheses.attend_and_weigh(tape, self.inputs, self.attributes, self.attended, name)
            case _:
                return cpu.attend_and_weigh(tape, self.inputs, self.attributes)


def asking(node: ir.Node, tape: Tape) -> Sequence[ir.Value]:
    """Tell whether anybody asks, and of each tap, whether all rows do."""
    query, *rows = [value for value in node.inputs if value is not None]
    return [anybody_asks(tape, rows), *(all_ask(tape, one, query) for one in rows)]


def keys_attended(node: ir.Node, tape: Tape) -> Sequence[ir.Value]:
    """Tell which keys each row attends, if anybody asks: bool [N, 1, 1, T], and else [0, 1, 1, 1]."""
    anybody, length, total, key = [*node.inputs, None][:4]
    assert anybody is not None and length is not None

    def told(tape: Tape) -> Sequence[ir.Value]:
        if total is not None:
            return [attended_keys_of_cache(tape, total, length)]
        assert key is not None
        return [attended_keys(tape, key, length)]

    def nothing(tape: Tape) -> Sequence[ir.Value]:
        return [constant(tape, np.zeros((0, 1, 1, 1), np.bool_))]

    name = node.outputs[0].name
    return choose(tape, anybody, (told, nothing), (f"{name}.told", f"{name}.nothing"))


RULES: Mapping[str, Callable[[ir.Node, Tape], Sequence[ir.Value]]] = {
    "AttentionWithTaps": attention_with_taps,
    "Asking": asking,
    "AttendedKeys": keys_attended,
}

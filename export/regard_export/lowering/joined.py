"""Attention and its weights from one computation, where all rows of a batch ask for them.

The fused operators are the fastest way to an attention's output, and computing its weights beside them does
their work once more. Where every row asks, what gives the weights may as well give the output: ONNX'
own `Attention` for a source over itself, and for the queries of hypotheses the products and the softmax.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.tape import Tape

from regard_export.attention import DOMAIN, trimmed
from regard_export.lowering import cpu
from regard_export.lowering.operands import BY_HEAD, int64, join_heads, split_heads
from regard_export.lowering.weights import (
    Branch,
    Scores,
    all_ask,
    choose,
    of_each_hypothesis,
    reduce_heads,
    weights_of_asking,
)

AFTER_SOFTMAX = 3
"""The mode in which `Attention` gives its weights."""


def join_taps(model: ir.Model) -> None:
    """Make an attention and the `AttentionWeights` of its query and key one node, in place.

    `AttentionWithTaps(query, key, value, key_length, bias, rows, ..)` gives the attention's output, then the
    weights of each `rows`, whose heads are put together as `reductions` say. A causal attention stays as it
    is, and so does a biased one of hypotheses, whose tap has another bias.
    """
    for node in list(model.graph):
        if node.domain != DOMAIN or node.op_type not in ("Attention", "CrossAttention") or "causal" in node.attributes:
            continue
        query, key, value, length, bias = [*node.inputs, None, None][:5]
        assert query is not None and key is not None
        taps = [
            user
            for user, index in query.uses()
            if user.op_type == "AttentionWeights" and index == 0 and user.inputs[1] is key
        ]
        if not taps or (node.op_type == "CrossAttention" and bias is not None):
            continue
        reductions = [tap.attributes["reduction"].as_string() if "reduction" in tap.attributes else "" for tap in taps]
        old = [node.outputs[0], *(tap.outputs[0] for tap in taps)]
        new = [ir.Value(name=one.name, type=one.type, shape=one.shape) for one in old]
        joined = ir.node(
            "AttentionWithTaps",
            [query, key, value, length, bias, *(tap.inputs[2] for tap in taps)],
            {name: node.attributes[name].value for name in ("num_heads", "scale")} | {"reductions": reductions},
            domain=DOMAIN,
            outputs=new,
        )
        ir.convenience.replace_nodes_and_values(model.graph, node, [node, *taps], [joined], old, new)


def attention_with_taps(node: ir.Node, tape: Tape) -> Sequence[ir.Value]:
    """Attend apart from the weights, unless all rows ask for those of one tap."""
    query, key, value, length, bias, *rows = node.inputs
    assert query is not None and key is not None and value is not None
    heads, scale = node.attributes["num_heads"].as_int(), node.attributes["scale"].as_float()
    reductions = [reduction or None for reduction in node.attributes["reductions"].as_strings()]
    asking = [one for one in rows if one is not None]
    whole = [before_heads(one) for one in (key, value)]
    if whole[0] is not None and whole[1] is not None:
        key, value = whole[0], whole[1]
    site = _Site(Scores(query, key, length, bias, heads, scale), value, asking, reductions, node.outputs[0].name or "")
    return site.from_tap(0)(tape)


@dataclass(frozen=True)
class _Site:
    """One attention: what it reads, and who asks for its weights."""

    scores: Scores
    value: ir.Value
    rows: Sequence[ir.Value]
    reductions: Sequence[str | None]
    name: str

    def from_tap(self, number: int) -> Branch:
        """Return how output and weights are had, if no tap before this one is asked for by all rows."""

        def either(tape: Tape) -> Sequence[ir.Value]:
            condition = all_ask(tape, self.rows[number], self.scores.query)
            names = f"{self.name}.joined.{number}", f"{self.name}.else.{number}"
            return choose(tape, condition, (self._joined(number), self.from_tap(number + 1)), names)

        return either if number < len(self.rows) else self._apart

    def _joined(self, leader: int) -> Branch:
        """Return how all rows get the weights of the tap `leader`, and those of other taps that ask for them."""

        def both(tape: Tape) -> Sequence[ir.Value]:
            output, weights = self._of_hypotheses(tape) if self.scores.of_hypotheses else self._of_source(tape)
            found = []
            for number, (rows, reduction) in enumerate(zip(self.rows, self.reductions, strict=True)):
                own = weights if number == leader else tape.op("Gather", [weights, rows], {"axis": 0})
                found.append(reduce_heads(tape, own, reduction))
            return [output, *found]

        return both

    def _apart(self, tape: Tape) -> Sequence[ir.Value]:
        scores = self.scores
        attend = cpu.attend_from_hypotheses if scores.of_hypotheses else cpu.attend
        inputs = [scores.query, scores.key, self.value, scores.length, scores.bias]
        output = attend(tape, inputs, {"num_heads": scores.heads, "scale": scores.scale})
        return [
            output,
            *(
                weights_of_asking(tape, scores, rows, reduction, f"{self.name}.{number}.")
                for number, (rows, reduction) in enumerate(zip(self.rows, self.reductions, strict=True))
            ),
        ]

    def _of_source(self, tape: Tape) -> tuple[ir.Value, ir.Value]:
        """Attend from [R, S, W] to a source of which keys and values are the same, or have their heads split."""
        scores = self.scores
        length = scores.length and tape.op("Cast", [scores.length], {"to": ir.DataType.INT64})
        whole = scores.key.shape is not None and len(scores.key.shape) == 3
        query = scores.query if whole else split_heads(tape, scores.query, scores.heads)
        inputs = trimmed([query, scores.key, self.value, scores.bias, None, None, length])
        attributes: dict[str, int | float] = {"scale": scores.scale, "qk_matmul_output_mode": AFTER_SOFTMAX}
        if whole:
            attributes |= {"q_num_heads": scores.heads, "kv_num_heads": scores.heads}
        output, weights = ir.Value(), ir.Value()
        nobody = [ir.Value(name=""), ir.Value(name="")]  # keys and values as a cache would have them
        tape.op_multi_out("Attention", inputs, attributes, outputs=[output, *nobody, weights])
        if not whole:
            output = join_heads(tape, output)
        return output, weights

    def _of_hypotheses(self, tape: Tape) -> tuple[ir.Value, ir.Value]:
        """Attend from the k hypotheses of each request, [R * k, 1, W], to its source's keys and values."""
        scores = self.scores
        weights = scores.of_requests(tape)
        output = tape.op("Transpose", [tape.op("MatMul", [weights, scores.key_heads(tape, self.value)])], BY_HEAD)
        width = scores.query.shape[2] if scores.query.shape is not None else None
        assert isinstance(width, int)
        output = tape.op("Reshape", [output, int64(tape, [-1, 1, width])])
        return output, of_each_hypothesis(tape, weights, scores.heads)


def before_heads(value: ir.Value) -> ir.Value | None:
    """Return what [R, H, T, D] was, as [R, T, W], before its heads were split; None if it was anything else."""
    split = value.producer()
    if split is None or split.op_type != "Transpose" or list(split.attributes["perm"].as_ints()) != BY_HEAD["perm"]:
        return None
    reshape = split.inputs[0].producer() if split.inputs[0] is not None else None
    if reshape is None or reshape.op_type != "Reshape":
        return None
    whole = reshape.inputs[0]
    return whole if whole is not None and whole.shape is not None and len(whole.shape) == 3 else None


RULES: Mapping[str, Callable[[ir.Node, Tape], Sequence[ir.Value]]] = {"AttentionWithTaps": attention_with_taps}

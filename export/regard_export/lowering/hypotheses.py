"""Cross-attention of the `cpu` target where every request has one hypothesis, as all have in greedy search.

`MultiHeadAttention` looks at the keys of all requests up to the longest source, and masks those beyond a source's
own. `GroupQueryAttention` looks at a row's own keys alone, but takes one query for each: the step chooses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape

from regard_export.attention import DOMAIN
from regard_export.lowering.cpu import (
    AFTER_SOFTMAX_OF_GROUPS,
    FUSED,
    attend_from_hypotheses,
    attributes_of,
    of_attended,
    weigh_from_hypotheses,
)
from regard_export.lowering.operands import constant, int64
from regard_export.lowering.weights import Branch, choose

TOLD = slice(5, 9)
"""The inputs of a `CrossAttention` that its `KeysOfSource` gives."""


def share_lengths(model: ir.Model) -> None:
    """Let, in place, all unbiased `CrossAttention` of the same key lengths read the outputs of one `KeysOfSource`.

    `KeysOfSource(key_length, query, key)` gives the place of each request's last key [R], the number of keys with
    those of padding [], whether every request has one hypothesis [1], and no positions of the query [N, 0, W].
    """
    shared: dict[ir.Value, Sequence[ir.Value]] = {}
    for node in list(model.graph):
        if node.domain != DOMAIN or node.op_type != "CrossAttention":
            continue
        query, key, _, length, bias = [*node.inputs, None, None][:5]
        if length is None or bias is not None:
            continue
        if length not in shared:
            told = ir.node("KeysOfSource", [length, query, key], domain=DOMAIN, num_outputs=4)
            model.graph.insert_before(node, told)
            shared[length] = told.outputs
        node.resize_inputs(TOLD.stop)
        for index, value in enumerate(shared[length], TOLD.start):
            node.replace_input_with(index, value)


def keys_of_source(node: ir.Node, tape: Tape) -> Sequence[ir.Value]:
    """Find out what `share_lengths` says."""
    length, query, key = node.inputs
    last = tape.op("Sub", [length, constant(tape, np.int32(1))])
    positions = tape.op("Shape", [key], {"start": 2, "end": 3})
    total = tape.op("Cast", [tape.op("Reshape", [positions, int64(tape, [])])], {"to": ir.DataType.INT32})
    rows, requests = (tape.op("Shape", [value], {"start": 0, "end": 1}) for value in (query, key))
    nothing = tape.op("Slice", [query, int64(tape, [0]), int64(tape, [0]), int64(tape, [1])])
    return [last, total, tape.op("Equal", [rows, requests]), nothing]


def attend(tape: Tape, inputs: Sequence[ir.Value | None], attributes: Mapping[str, int | float], name: str) -> ir.Value:
    """Attend from hypotheses to their request's source; the branches of this have names that begin with `name`."""

    def one(tape: Tape) -> Sequence[ir.Value]:
        output = ir.Value()
        _attend_to_own(tape, inputs, attributes, [output])
        return [output]

    def several(tape: Tape) -> Sequence[ir.Value]:
        return [attend_from_hypotheses(tape, inputs[: TOLD.start], attributes)]

    return _either(tape, inputs, one, several, name)[0]


def attend_and_weigh(
    tape: Tape,
    inputs: Sequence[ir.Value | None],
    attributes: Mapping[str, int | float],
    attended: ir.Value | None,
    name: str,
) -> Sequence[ir.Value]:
    """Attend as `attend` does, and return the weights [N, H, 1, S] as well; `attended` [R, 1, 1, S] tells the keys."""

    def one(tape: Tape) -> Sequence[ir.Value]:
        output, weights = ir.Value(), ir.Value()
        unwanted = [ir.Value(name=""), ir.Value(name="")]  # keys and values with those of this step, of which none is
        mode = {"qk_output": AFTER_SOFTMAX_OF_GROUPS}
        _attend_to_own(tape, inputs, {**attributes, **mode}, [output, *unwanted, weights])
        return [output, of_attended(tape, weights, attended)]

    def several(tape: Tape) -> Sequence[ir.Value]:
        return weigh_from_hypotheses(tape, inputs[: TOLD.start], attributes)

    return _either(tape, inputs, one, several, name)


def _either(
    tape: Tape, inputs: Sequence[ir.Value | None], one: Branch, several: Branch, name: str
) -> Sequence[ir.Value]:
    told = inputs[TOLD]
    if not told or told[0] is None:
        return several(tape)
    single = told[2]
    assert single is not None
    return choose(tape, single, (one, several), (f"{name}one", f"{name}several"))


def _attend_to_own(
    tape: Tape, inputs: Sequence[ir.Value | None], attributes: Mapping[str, int | float], outputs: Sequence[ir.Value]
) -> None:
    query, key, value = inputs[:3]
    last, total, _, nothing = inputs[TOLD]
    own = {**attributes, "kv_num_heads": attributes["num_heads"]}
    operands = [query, nothing, nothing, key, value, last, total]
    tape.op_multi_out("GroupQueryAttention", operands, own, outputs=outputs, domain=FUSED)


def cross_attention(node: ir.Node, tape: Tape) -> Sequence[ir.Value]:
    """Attend from hypotheses to their request's source."""
    return [attend(tape, node.inputs, attributes_of(node), f"{node.outputs[0].name}.")]


RULES: Mapping[str, Callable[[ir.Node, Tape], Sequence[ir.Value]]] = {
    "CrossAttention": cross_attention,
    "KeysOfSource": keys_of_source,
}

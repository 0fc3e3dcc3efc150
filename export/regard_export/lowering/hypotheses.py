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
from regard_export.lowering.cpu import FUSED, attend_from_hypotheses, attributes_of
from regard_export.lowering.operands import constant, int64
from regard_export.lowering.weights import choose

TOLD = slice(5, 9)
"""The inputs of a `CrossAttention` that its `KeysOfSource` gives."""


def share_lengths(model: ir.Model) -> None:
    """Let, in place, all unbiased `CrossAttention` of the same key lengths read the outputs of one `KeysOfSource`.

    `KeysOfSource(key_length, query, key)` gives the place of each request's last key [R], the most keys [], whether
    every request has one hypothesis [1], and no positions of the query [N, 0, W].
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
    most = tape.op("ReduceMax", [length], {"keepdims": 0})
    rows, requests = (tape.op("Shape", [value], {"start": 0, "end": 1}) for value in (query, key))
    nothing = tape.op("Slice", [query, int64(tape, [0]), int64(tape, [0]), int64(tape, [1])])
    return [last, most, tape.op("Equal", [rows, requests]), nothing]


def attend(tape: Tape, inputs: Sequence[ir.Value | None], attributes: Mapping[str, int | float], name: str) -> ir.Value:
    """Attend from hypotheses to their request's source; the branches of this have names that begin with `name`."""
    query, key, value = inputs[:3]
    told = inputs[TOLD]
    if not told or told[0] is None:
        return attend_from_hypotheses(tape, inputs[: TOLD.start], attributes)
    last, most, single, nothing = told
    assert single is not None

    def one(tape: Tape) -> Sequence[ir.Value]:
        own = {**attributes, "kv_num_heads": attributes["num_heads"]}
        operands = [query, nothing, nothing, key, value, last, most]
        return [tape.op("GroupQueryAttention", operands, own, domain=FUSED)]

    def several(tape: Tape) -> Sequence[ir.Value]:
        return [attend_from_hypotheses(tape, inputs[: TOLD.start], attributes)]

    return choose(tape, single, (one, several), (f"{name}one", f"{name}several"))[0]


def cross_attention(node: ir.Node, tape: Tape) -> Sequence[ir.Value]:
    """Attend from hypotheses to their request's source."""
    return [attend(tape, node.inputs, attributes_of(node), f"{node.outputs[0].name}.")]


RULES: Mapping[str, Callable[[ir.Node, Tape], Sequence[ir.Value]]] = {
    "CrossAttention": cross_attention,
    "KeysOfSource": keys_of_source,
}

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
from regard_export.lowering.cpu import attend_from_hypotheses, attributes_of, weigh_from_hypotheses, weigh_one_query
from regard_export.lowering.operands import constant, int64
from regard_export.lowering.weights import choose, no_weights

TOLD = slice(5, 9)
"""The inputs of a `CrossAttention` that its `KeysOfSource` gives."""
INPUTS = TOLD.stop + 1
"""All of its inputs, the last of which tells whether anybody asks for its weights."""


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


def cross_attention(node: ir.Node, tape: Tape) -> Sequence[ir.Value]:
    """Attend from hypotheses to their request's source; with an `anybody` behind what is told, give weights as well."""
    inputs, attributes, name = [*node.inputs, *[None] * INPUTS][:INPUTS], attributes_of(node), node.outputs[0].name
    last, total, single, nothing, anybody = inputs[TOLD.start :]

    def one(tape: Tape) -> Sequence[ir.Value]:
        operands = [inputs[0], nothing, nothing, *inputs[1:3], last, total]
        return weigh_one_query(tape, operands, attributes, keep_cache=False)[: len(node.outputs)]

    def several(tape: Tape) -> Sequence[ir.Value]:
        if anybody is None:
            return without_weights(tape)
        branches = with_weights, without_weights
        return choose(tape, anybody, branches, (f"{name}.weighed", f"{name}.plain"))

    def with_weights(tape: Tape) -> Sequence[ir.Value]:
        return weigh_from_hypotheses(tape, inputs[: TOLD.start], attributes)

    def without_weights(tape: Tape) -> Sequence[ir.Value]:
        output = attend_from_hypotheses(tape, inputs[: TOLD.start], attributes)
        none = [] if anybody is None else [no_weights(tape, int(attributes["num_heads"]), None)]
        return [output, *none]

    if single is None:
        return several(tape)
    return choose(tape, single, (one, several), (f"{name}.one", f"{name}.several"))


RULES: Mapping[str, Callable[[ir.Node, Tape], Sequence[ir.Value]]] = {
    "CrossAttention": cross_attention,
    "KeysOfSource": keys_of_source,
}

"""The `portable` target: operators of ONNX alone, which any runtime of opset 24 has.

Their contracts: https://onnx.ai/onnx/operators/. The cache is kept as ONNX describes it for
`Attention`: outside, written by `TensorScatter`, with the number of keys that count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import onnx_ir as ir
from onnx_ir.tape import Tape

from regard_export.lowering.candidates import candidates, log_sum_exp
from regard_export.lowering.operands import heads_of, int64, join_heads, split_heads
from regard_export.lowering.weights import attention_weights


def attention(node: ir.Node, tape: Tape) -> Sequence[ir.Value]:
    """Attend from query [R, S, W], split into heads, to key and value [R, H, T, D]."""
    query, key, value, length, bias = [*node.inputs, None, None][:5]
    output = _attend(node, tape, [split_heads(tape, query, _heads(node)), key, value], length, bias)
    return [join_heads(tape, output)]


def cross_attention(node: ir.Node, tape: Tape) -> Sequence[ir.Value]:
    """Make the k hypotheses of a request the queries of one row: [R * k, 1, W] as [R, H, k, D]."""
    query, key, value, length, bias = [*node.inputs, None, None][:5]
    assert query is not None and query.shape is not None
    requests = tape.op("Shape", [key], {"start": 0, "end": 1})
    width = query.shape[2]
    assert isinstance(width, int)
    grouped = tape.op("Reshape", [query, tape.op("Concat", [requests, int64(tape, [-1, width])], {"axis": 0})])
    output = _attend(node, tape, [split_heads(tape, grouped, _heads(node)), key, value], length, bias)
    return [tape.op("Reshape", [join_heads(tape, output), int64(tape, [-1, 1, width])])]


def cached_attention(node: ir.Node, tape: Tape) -> Sequence[ir.Value]:
    """Write the row's new key and value behind those that it has, and attend to all of them.

    The one new position of every row lets [N, 1, W] become [N, H, 1, D] without a transposition.
    """
    query, key, value, past_key, past_value, row_length, _, bias = [*node.inputs, None][:8]
    assert past_key is not None and past_key.shape is not None
    query_heads, key_heads, size = _heads(node), heads_of(past_key), past_key.shape[3]
    assert isinstance(size, int)
    heads = query_heads, key_heads, key_heads
    if key is None:
        widths = int64(tape, [each * size for each in heads])
        query, key, value = tape.op_multi_out("Split", [query, widths], {"axis": 2}, num_outputs=3)
    query, key, value = (
        tape.op("Reshape", [new, int64(tape, [-1, own, 1, size])])
        for new, own in zip((query, key, value), heads, strict=True)
    )
    at = tape.op("Cast", [row_length], {"to": ir.DataType.INT64})
    present_key, present_value = (
        tape.op("TensorScatter", [past, new, at], {"axis": 2}) for past, new in ((past_key, key), (past_value, value))
    )
    length = tape.op("Add", [at, int64(tape, [1])])
    output = _attend(node, tape, [query, present_key, present_value], length, bias)
    return [tape.op("Reshape", [output, int64(tape, [-1, 1, query_heads * size])]), present_key, present_value]


def rms_normalization(node: ir.Node, tape: Tape) -> Sequence[ir.Value]:
    """Take ONNX' own, of opset 23."""
    return [tape.op("RMSNormalization", node.inputs, {"epsilon": node.attributes["epsilon"].as_float(), "axis": -1})]


def rotary_embedding(node: ir.Node, tape: Tape) -> Sequence[ir.Value]:
    """Take ONNX' own, of opset 23."""
    return [tape.op("RotaryEmbedding", node.inputs, {"num_heads": _heads(node)})]


def _heads(node: ir.Node) -> int:
    return node.attributes["num_heads"].as_int()


def _attend(
    node: ir.Node, tape: Tape, heads: Sequence[ir.Value | None], length: ir.Value | None, bias: ir.Value | None
) -> ir.Value:
    """Attend from [R, H, Q, D] to the first `length` [R] of keys and values [R, H, T, D]."""
    inputs = [*heads, bias]
    if length is not None:
        inputs = [*inputs, None, None, tape.op("Cast", [length], {"to": ir.DataType.INT64})]
    elif bias is None:
        inputs = [*heads]
    attributes: dict[str, int | float] = {"scale": node.attributes["scale"].as_float()}
    if "causal" in node.attributes:
        attributes["is_causal"] = 1
    return tape.op("Attention", inputs, attributes)


RULES: Mapping[str, Callable[[ir.Node, Tape], Sequence[ir.Value]]] = {
    "Attention": attention,
    "CrossAttention": cross_attention,
    "CachedAttention": cached_attention,
    "AttentionWeights": attention_weights,
    "RMSNormalization": rms_normalization,
    "RotaryEmbedding": rotary_embedding,
    "Candidates": candidates,
    "LogSumExp": log_sum_exp,
}

"""The `cpu` target: ONNX' `Attention`, and the fused operators of ONNX Runtime's `com.microsoft` domain.

Their contracts: https://onnx.ai/onnx/operators/onnx__Attention.html and
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md. Within a source, where keys are
left out or scores are biased, `Attention` takes 0.5 to 0.95 of the time of `MultiHeadAttention` (32 to 2,048
tokens), with the same result; where neither is, `MultiHeadAttention` runs as flash attention.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import onnx_ir as ir
from onnx_ir.tape import Tape

from regard_export.attention import trimmed
from regard_export.lowering import portable
from regard_export.lowering.candidates import candidates_by_block, log_sum_exp
from regard_export.lowering.operands import BY_HEAD, heads_of, int64, is_whole, join_heads, split_heads, unsplit
from regard_export.lowering.weights import attention_weights, first_keys

FUSED = "com.microsoft"
AXIS = {"axis": 0}
AFTER_SOFTMAX, AFTER_SOFTMAX_OF_GROUPS = 3, 2
"""The modes in which `Attention` and `GroupQueryAttention` give their weights."""


def attributes_of(node: ir.Node) -> dict[str, int | float]:
    """Return what every operator of attention is told: the number of its heads, and the scale of its scores."""
    return {"num_heads": node.attributes["num_heads"].as_int(), "scale": node.attributes["scale"].as_float()}


def attention(node: ir.Node, tape: Tape) -> Sequence[ir.Value]:
    """Attend within a source; up to a query's own place alone, if the node is causal."""
    if "causal" in node.attributes:
        return multi_head_attention(node, tape)
    return [attend_within(tape, node.inputs, attributes_of(node))]


def multi_head_attention(node: ir.Node, tape: Tape) -> Sequence[ir.Value]:
    """Attend within a source with `MultiHeadAttention`, whatever the node's inputs and attributes."""
    attributes = attributes_of(node) | ({"unidirectional": 1} if "causal" in node.attributes else {})
    return [attend(tape, node.inputs, attributes)]


def cross_attention(node: ir.Node, tape: Tape) -> Sequence[ir.Value]:
    """Attend from hypotheses to their request's source."""
    return [attend_from_hypotheses(tape, node.inputs, attributes_of(node))]


def attend(tape: Tape, inputs: Sequence[ir.Value | None], attributes: Mapping[str, int | float]) -> ir.Value:
    """Give MultiHeadAttention the key lengths as its one-dimensional padding mask.

    `inputs` are query [R, S, W], key and value [R, T, W] or [R, H, T, D], and, if there are any, key lengths [R]
    and a bias; so they are for the following functions.
    """
    query, key, value, length, bias = [*inputs, None, None][:5]
    operands = trimmed([query, key, value, None, length, bias])
    return tape.op("MultiHeadAttention", operands, attributes, domain=FUSED)


def attend_within(tape: Tape, inputs: Sequence[ir.Value | None], attributes: Mapping[str, int | float]) -> ir.Value:
    """Attend within a source with the faster operator."""
    query, key, value, length, bias = [*inputs, None, None][:5]
    assert key is not None and value is not None
    key, value = unsplit(key, value)
    if (length is None and bias is None) or not is_whole(key):
        return attend(tape, inputs, attributes)
    output = ir.Value()
    _attend(tape, [query, key, value, length, bias], attributes, [output])
    return output


def attend_and_weigh(
    tape: Tape, inputs: Sequence[ir.Value | None], attributes: Mapping[str, int | float]
) -> list[ir.Value]:
    """Attend within a source, and return the weights [R, H, S, T] as well."""
    query, key, value, length, bias = [*inputs, None, None][:5]
    assert query is not None and key is not None and value is not None
    key, value = unsplit(key, value)
    whole = is_whole(key)
    if not whole:
        query = split_heads(tape, query, int(attributes["num_heads"]))
    output, weights = _attend_with_weights(tape, [query, key, value, length, bias], attributes)
    return [output if whole else join_heads(tape, output), weights]


def attend_from_hypotheses(
    tape: Tape, inputs: Sequence[ir.Value | None], attributes: Mapping[str, int | float]
) -> ir.Value:
    """Make the k hypotheses of a request the queries of one row: [R * k, 1, W] as [R, k, W]."""
    query, width = _query_and_width(inputs)
    grouped = tape.op("Reshape", [query, tape.op("Concat", [_rows(tape, inputs[1]), int64(tape, [-1, width])], AXIS)])
    return tape.op("Reshape", [attend(tape, [grouped, *inputs[1:]], attributes), int64(tape, [-1, 1, width])])


def weigh_from_hypotheses(
    tape: Tape, inputs: Sequence[ir.Value | None], attributes: Mapping[str, int | float]
) -> list[ir.Value]:
    """Attend as `attend_from_hypotheses` does, and return the weights [R * k, H, 1, T] as well."""
    query, width = _query_and_width(inputs)
    heads = int(attributes["num_heads"])
    shape = tape.op("Concat", [_rows(tape, inputs[1]), int64(tape, [-1, heads, width // heads])], AXIS)
    grouped = tape.op("Transpose", [tape.op("Reshape", [query, shape])], BY_HEAD)
    output, weights = _attend_with_weights(tape, [grouped, *inputs[1:]], attributes)
    output = tape.op("Reshape", [tape.op("Transpose", [output], BY_HEAD), int64(tape, [-1, 1, width])])
    shape = tape.op("Concat", [_rows(tape, query), int64(tape, [heads, 1, -1])], AXIS)
    return [output, tape.op("Reshape", [tape.op("Transpose", [weights], BY_HEAD), shape])]


def _attend(
    tape: Tape, inputs: Sequence[ir.Value | None], attributes: Mapping[str, int | float], outputs: Sequence[ir.Value]
) -> None:
    """Give ONNX' `Attention` the key lengths as those of a cache that holds them.

    Query, key and value have either all their heads split, or none.
    """
    query, key, value, length, bias = [*inputs, None, None][:5]
    assert key is not None
    options = dict(attributes)
    heads = options.pop("num_heads")
    if is_whole(key):
        options |= {"q_num_heads": heads, "kv_num_heads": heads}
    if length is not None:
        length = tape.op("Cast", [length], {"to": ir.DataType.INT64})
    tape.op_multi_out("Attention", trimmed([query, key, value, bias, None, None, length]), options, outputs=outputs)


def _attend_with_weights(
    tape: Tape, inputs: Sequence[ir.Value | None], attributes: Mapping[str, int | float]
) -> tuple[ir.Value, ir.Value]:
    output, weights = ir.Value(), ir.Value()
    unwanted = [ir.Value(name=""), ir.Value(name="")]  # keys and values as a cache would have them
    attributes = {**attributes, "qk_matmul_output_mode": AFTER_SOFTMAX}
    _attend(tape, inputs, attributes, [output, *unwanted, weights])
    return output, weights


def _query_and_width(inputs: Sequence[ir.Value | None]) -> tuple[ir.Value, int]:
    query = inputs[0]
    assert query is not None and query.shape is not None
    width = query.shape[2]
    assert isinstance(width, int)
    return query, width


def _rows(tape: Tape, value: ir.Value | None) -> ir.Value:
    return tape.op("Shape", [value], {"start": 0, "end": 1})


def cached_attention(node: ir.Node, tape: Tape) -> Sequence[ir.Value]:
    """Append in place and attend, with `GroupQueryAttention`.

    Its `seqlens_k` is the row's total length minus one: the length before this step. The bias is its
    eleventh input, behind those of rotary positions.
    """
    inputs = _of_cache(node, tape)
    options = attributes_of(node) | _key_heads(inputs)
    return tape.op_multi_out("GroupQueryAttention", inputs, options, num_outputs=3, domain=FUSED)


def cached_attention_with_weights(node: ir.Node, tape: Tape) -> Sequence[ir.Value]:
    """Do as `cached_attention` does, the faster way, which gives the weights [N, H, 1, T] as well."""
    outputs = weigh_one_query(tape, _of_cache(node, tape), attributes_of(node), keep_cache=True)
    return outputs[: len(node.outputs)]


def _of_cache(node: ir.Node, tape: Tape) -> list[ir.Value | None]:
    *inputs, bias = [*node.inputs, None][:8]
    if bias is not None:
        bias = first_keys(tape, bias, inputs[6])
    return trimmed([*inputs, None, None, None, bias])


def weigh_one_query(
    tape: Tape, inputs: Sequence[ir.Value | None], attributes: Mapping[str, int | float], *, keep_cache: bool
) -> list[ir.Value]:
    """Return what `GroupQueryAttention` gives of one query a row: the output, the cache if it is kept, the weights.

    For its weights, which are anything beyond a row's own keys, it computes with products of a row by a matrix.
    Where those need no scale (`scales`), that takes 0.6 to 1.0 of the time of the way that it takes otherwise.
    """
    outputs = [ir.Value() if keep_cache or index in (0, 3) else ir.Value(name="") for index in range(4)]
    options = {**attributes, **_key_heads(inputs), "qk_output": AFTER_SOFTMAX_OF_GROUPS}
    tape.op_multi_out("GroupQueryAttention", inputs, options, outputs=outputs, domain=FUSED)
    return [output for output in outputs if output.name != ""]


def _key_heads(inputs: Sequence[ir.Value | None]) -> dict[str, int]:
    """Return what `GroupQueryAttention` is told of the keys [R, h, T, D] that it has already, its fourth input."""
    return {"kv_num_heads": heads_of(inputs[3])}


RULES: Mapping[str, Callable[[ir.Node, Tape], Sequence[ir.Value]]] = {
    "Attention": attention,
    "CrossAttention": cross_attention,
    "CachedAttention": cached_attention_with_weights,
    "AttentionWeights": attention_weights,
    "RMSNormalization": portable.rms_normalization,
    "RotaryEmbedding": portable.rotary_embedding,
    "Candidates": candidates_by_block,
    "LogSumExp": log_sum_exp,
}

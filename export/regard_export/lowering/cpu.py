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
from regard_export.lowering.candidates import candidates, log_sum_exp
from regard_export.lowering.operands import int64, is_whole, join_heads, split_heads, unsplit
from regard_export.lowering.weights import attention_weights, first_keys, of_each_hypothesis

FUSED = "com.microsoft"
AFTER_SOFTMAX = 3
"""The mode in which `Attention` gives its weights."""


def _attributes(node: ir.Node) -> dict[str, int | float]:
    return {"num_heads": node.attributes["num_heads"].as_int(), "scale": node.attributes["scale"].as_float()}


def attention(node: ir.Node, tape: Tape) -> Sequence[ir.Value]:
    """Attend within a source; up to a query's own place alone, if the node is causal."""
    if "causal" in node.attributes:
        return multi_head_attention(node, tape)
    return [attend_within(tape, node.inputs, _attributes(node))]


def multi_head_attention(node: ir.Node, tape: Tape) -> Sequence[ir.Value]:
    """Attend within a source with `MultiHeadAttention`, whatever the node's inputs and attributes."""
    attributes = _attributes(node) | ({"unidirectional": 1} if "causal" in node.attributes else {})
    return [attend(tape, node.inputs, attributes)]


def cross_attention(node: ir.Node, tape: Tape) -> Sequence[ir.Value]:
    """Attend from hypotheses to their request's source."""
    return [attend_from_hypotheses(tape, node.inputs, _attributes(node))]


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
    return _attend(tape, [query, key, value, length, bias], attributes, [ir.Value()])


def attend_and_weigh(
    tape: Tape, inputs: Sequence[ir.Value | None], attributes: Mapping[str, int | float]
) -> tuple[ir.Value, ir.Value]:
    """Attend within a source, and return the weights [R, H, S, T] as well."""
    query, key, value, length, bias = [*inputs, None, None][:5]
    assert key is not None and value is not None
    key, value = unsplit(key, value)
    weights = ir.Value()
    unwanted = [ir.Value(name=""), ir.Value(name="")]  # keys and values as a cache would have them
    output = _attend(
        tape,
        [query, key, value, length, bias],
        {**attributes, "qk_matmul_output_mode": AFTER_SOFTMAX},
        [ir.Value(), *unwanted, weights],
    )
    return output, _of_unknown_size(tape, weights)


def _attend(
    tape: Tape,
    inputs: Sequence[ir.Value | None],
    attributes: Mapping[str, int | float],
    outputs: Sequence[ir.Value],
) -> ir.Value:
    """Give ONNX' `Attention` the key lengths as those of a cache that holds them; `outputs` are the operator's."""
    query, key, value, length, bias = inputs
    assert query is not None and key is not None
    options = dict(attributes)
    heads = int(options.pop("num_heads"))
    whole = is_whole(key)
    if whole:
        options |= {"q_num_heads": heads, "kv_num_heads": heads}
    else:
        query = split_heads(tape, query, heads)
    if length is not None:
        length = tape.op("Cast", [length], {"to": ir.DataType.INT64})
    tape.op_multi_out("Attention", trimmed([query, key, value, bias, None, None, length]), options, outputs=outputs)
    return outputs[0] if whole else join_heads(tape, outputs[0])


def _of_unknown_size(tape: Tape, weights: ir.Value) -> ir.Value:
    """Return weights of which ONNX' inference knows no size; it takes that of keys which it doesn't know for 0.

    It follows `Shape` into `Reshape`, but not through `Abs`.
    """
    return tape.op("Reshape", [weights, tape.op("Abs", [tape.op("Shape", [weights])])])


def attend_from_hypotheses(
    tape: Tape, inputs: Sequence[ir.Value | None], attributes: Mapping[str, int | float]
) -> ir.Value:
    """Make the k hypotheses of a request the queries of one row: [R * k, 1, W] as [R, k, W]."""
    grouped, width = _by_request(tape, inputs)
    return _by_hypothesis(tape, attend(tape, grouped, attributes), width)


def weigh_from_hypotheses(
    tape: Tape, inputs: Sequence[ir.Value | None], attributes: Mapping[str, int | float]
) -> tuple[ir.Value, ir.Value]:
    """Attend as `attend_from_hypotheses` does, and return the weights [R * k, H, 1, T] as well."""
    grouped, width = _by_request(tape, inputs)
    output, weights = attend_and_weigh(tape, grouped, attributes)
    return _by_hypothesis(tape, output, width), of_each_hypothesis(tape, weights, int(attributes["num_heads"]))


def _by_request(tape: Tape, inputs: Sequence[ir.Value | None]) -> tuple[list[ir.Value | None], int]:
    query, key = inputs[:2]
    assert query is not None and query.shape is not None
    width = query.shape[2]
    assert isinstance(width, int)
    requests = tape.op("Shape", [key], {"start": 0, "end": 1})
    shape = tape.op("Concat", [requests, int64(tape, [-1, width])], {"axis": 0})
    return [tape.op("Reshape", [query, shape]), *inputs[1:]], width


def _by_hypothesis(tape: Tape, output: ir.Value, width: int) -> ir.Value:
    return tape.op("Reshape", [output, int64(tape, [-1, 1, width])])


def cached_attention(node: ir.Node, tape: Tape) -> Sequence[ir.Value]:
    """Append in place and attend: GroupQueryAttention with as many key heads as query heads.

    Its `seqlens_k` is the row's total length minus one: the length before this step. The bias is its
    eleventh input, behind those of rotary positions.
    """
    attributes = _attributes(node)
    *inputs, bias = [*node.inputs, None][:8]
    if bias is not None:
        bias = first_keys(tape, bias, inputs[6])
    return tape.op_multi_out(
        "GroupQueryAttention",
        trimmed([*inputs, None, None, None, bias]),
        attributes | {"kv_num_heads": attributes["num_heads"]},
        num_outputs=3,
        domain=FUSED,
    )


def rms_normalization(node: ir.Node, tape: Tape) -> Sequence[ir.Value]:
    """Give ONNX Runtime its own operator; ONNX has none before opset 23."""
    attributes = {"epsilon": node.attributes["epsilon"].as_float(), "axis": -1}
    return [tape.op("SimplifiedLayerNormalization", node.inputs, attributes)]


RULES: Mapping[str, Callable[[ir.Node, Tape], Sequence[ir.Value]]] = {
    "Attention": attention,
    "CrossAttention": cross_attention,
    "CachedAttention": cached_attention,
    "AttentionWeights": attention_weights,
    "RMSNormalization": rms_normalization,
    "Candidates": candidates,
    "LogSumExp": log_sum_exp,
}

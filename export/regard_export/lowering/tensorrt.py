"""The `tensorrt` target: encoders and classifiers for TensorRT, decoding steps for CUDA; operators of ONNX alone.

What TensorRT runs is of opset 21 and writes attention as the products and the softmax that it is:
TensorRT finds and fuses them itself, and its parser knows the operator `Attention` from 10.14 on
only. The step is that of `portable`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape

from regard.manifest import ProfileSpec, TensorSpec
from regard_export.lowering import portable
from regard_export.lowering.operands import constant, int64, is_whole, join_heads, split_heads
from regard_export.lowering.weights import attended_keys, causal_keys, dot_products, masked_softmax

BATCH = ProfileSpec(min=1, opt=8, max=64)
USUAL_TOKENS = 64


def attention(node: ir.Node, tape: Tape) -> Sequence[ir.Value]:
    """Attend from query [R, S, W], split into heads, to key and value [R, H, T, D]."""
    query, key, value, length, bias = [*node.inputs, None, None][:5]
    assert key is not None and key.dtype is not None
    attended = None if length is None else attended_keys(tape, key, length)
    if "causal" in node.attributes:
        attended = causal_keys(tape, key, attended)
    scale = key.dtype.numpy().type(node.attributes["scale"].as_float())
    products = dot_products(tape, split_heads(tape, query, node.attributes["num_heads"].as_int()), key)
    weights = masked_softmax(tape, products, bias, attended, scale)
    return [join_heads(tape, tape.op("MatMul", [weights, value]))]


def rms_normalization(node: ir.Node, tape: Tape) -> Sequence[ir.Value]:
    """Write the norm as what it is, with the mean of squares in float32, where no square overflows."""
    hidden, weight = node.inputs
    assert hidden is not None
    wide = tape.op("Cast", [hidden], {"to": ir.DataType.FLOAT})
    mean = tape.op("ReduceMean", [tape.op("Mul", [wide, wide]), int64(tape, [-1])], {"keepdims": 1})
    epsilon = constant(tape, np.float32(node.attributes["epsilon"].as_float()))
    normed = tape.op("Div", [wide, tape.op("Sqrt", [tape.op("Add", [mean, epsilon])])])
    return [tape.op("Mul", [tape.op("CastLike", [normed, weight]), weight])]


def rotary_embedding(node: ir.Node, tape: Tape) -> Sequence[ir.Value]:
    """Write the rotation as what it is: ONNX has no operator for it before opset 23."""
    given, cosines, sines = node.inputs
    assert given is not None
    whole = is_whole(given)
    heads = node.attributes["num_heads"].as_int() if whole else 0
    parts = tape.op("Reshape", [given, int64(tape, [0, 0, heads, 2, -1])])
    cosines, sines = (tape.op("Unsqueeze", [one, int64(tape, [2 if whole else 1])]) for one in (cosines, sines))
    first, second = (tape.op("Gather", [parts, constant(tape, np.int64(half))], {"axis": 3}) for half in (0, 1))
    turned = (
        tape.op("Sub", [tape.op("Mul", [first, cosines]), tape.op("Mul", [second, sines])]),
        tape.op("Add", [tape.op("Mul", [second, cosines]), tape.op("Mul", [first, sines])]),
    )
    rotated = tape.op("Concat", turned, {"axis": 3})
    return [tape.op("Reshape", [rotated, int64(tape, [0, 0, -1])]) if whole else rotated]


def profiles(inputs: Sequence[TensorSpec], max_source_tokens: int | None) -> Mapping[str, ProfileSpec]:
    """Return the sizes that an engine is built for, of every dimension of `inputs` that varies.

    The batch R may have 1 to 64 requests, and a text S as many tokens as the model takes.
    """
    sizes = {"R": BATCH}
    if max_source_tokens is not None:
        usual = min(USUAL_TOKENS, max_source_tokens)
        sizes["S"] = ProfileSpec(min=1, opt=usual, max=max_source_tokens)
    return {dim: sizes[dim] for tensor in inputs for dim in tensor.shape if isinstance(dim, str)}


RULES: Mapping[str, Callable[[ir.Node, Tape], Sequence[ir.Value]]] = {
    **portable.RULES,
    "Attention": attention,
    "RMSNormalization": rms_normalization,
    "RotaryEmbedding": rotary_embedding,
}

"""The `cuda` target: the fused operators of ONNX Runtime's `com.microsoft` domain, as its CUDA kernels take them.

`MultiHeadAttention` runs as flash attention where neither its scores nor a padding mask is connected.
Of masks there is none but the key lengths of texts: one dimension, which cuDNN's and TensorRT's fused
kernels take. `GroupQueryAttention` has CUDA kernels for float16 alone, which refuse a bias; in float32, and where
scores are biased, the cache is attended with ONNX' own operators.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import onnx_ir as ir
from onnx_ir.tape import Tape

from regard_export.lowering import cpu, portable


def cached_attention(node: ir.Node, tape: Tape) -> Sequence[ir.Value]:
    """Append in place and attend, with the operator that the precision and the bias, if there is one, allow."""
    past_key, bias = node.inputs[3], [*node.inputs, None][7]
    if past_key is not None and past_key.dtype == ir.DataType.FLOAT16 and bias is None:
        return cpu.cached_attention(node, tape)
    return portable.cached_attention(node, tape)


RULES: Mapping[str, Callable[[ir.Node, Tape], Sequence[ir.Value]]] = {
    **cpu.RULES,
    "Attention": cpu.multi_head_attention,
    "CachedAttention": cached_attention,
}

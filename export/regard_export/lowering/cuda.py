"""The `cuda` target: the fused operators of ONNX Runtime's `com.microsoft` domain, as its CUDA kernels take them.

`MultiHeadAttention` runs as flash attention where neither its scores nor a padding mask is connected.
Of masks there is none but the key lengths of texts: one dimension, which cuDNN's and TensorRT's fused
kernels take. `GroupQueryAttention` has CUDA kernels for float16 alone; in float32 the cache is
attended with ONNX' own operators.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import onnx_ir as ir
from onnx_ir.tape import Tape

from regard_export.lowering import cpu, portable


def cached_attention(node: ir.Node, tape: Tape) -> Sequence[ir.Value]:
    """Append in place and attend, with the operator that the precision allows."""
    past_key = node.inputs[3]
    if past_key is not None and past_key.dtype == ir.DataType.FLOAT16:
        return cpu.cached_attention(node, tape)
    return portable.cached_attention(node, tape)


RULES: Mapping[str, Callable[[ir.Node, Tape], Sequence[ir.Value]]] = {
    **cpu.RULES,
    "Attention": cpu.multi_head_attention,
    "CachedAttention": cached_attention,
}

"""int8: dynamic quantisation of the matrix products, per output channel.

https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html

Activations are rounded when they come. ONNX Runtime's own operator for that finds one scale for a whole batch, so
that what an answer is depends on what is beside it. With a scale for each token it doesn't, and less is lost
(Yao et al. 2022, ZeroQuant, section 4.1: token-wise quantisation of activations), for a few more operators.

Nearly all that is lost with one scale is lost before products that narrow: what they multiply comes from an
activation function, is close to 0 for most tokens, and very large for some. So it is these that a "mixed" graph gives
scales for tokens, which costs a third of what it costs everywhere. It is also the one whose step can have a twin for a
row that is alone (`alone.py`): where every answer must be that of any batch, none can.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.onnx_model import ONNXModel

from regard.manifest import ActivationScale
from regard_export.alone import step_alone
from regard_export.pairs import round_in_pairs
from regard_export.token_scales import scale_tokens


def quantize(path: Path, scale: ActivationScale, alone: Path | None = None) -> bool:
    """Replace the graph at `path` (and its weights) by its int8 version.

    Write a twin for a row that is `alone` beside it, which has the same weights, if one is asked for, and is of use.
    Return whether there is one.
    """
    model = onnx.load(path)
    path.with_name(f"{path.name}.data").write_bytes(b"")  # or the int8 weights are put behind the others
    _fold_transposed_weights(model.graph)
    ONNXModel(model).replace_gemm_with_matmul()  # which transposes weights: now, so that they are what is rounded
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    kept = [info for info in model.graph.value_info if info.name not in weights]
    del model.graph.value_info[:]
    model.graph.value_info.extend(kept)
    logging.disable(logging.WARNING)
    try:
        quantize_dynamic(
            model,
            path,
            weight_type=QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=["MatMul"],
            use_external_data_format=True,
            extra_options={"MatMulConstBOnly": True, "DefaultTensorType": onnx.TensorProto.FLOAT},
        )
    finally:
        logging.disable(logging.NOTSET)
    quantized = ir.load(path)
    quantized.graph.sort()  # the quantiser leaves those that a branch reads from behind the branch
    _keep_from_saturating(quantized, path, weights)
    twin = step_alone(quantized, path, weights) if scale == "mixed" and alone is not None else None
    if scale != "tensor":
        scale_tokens(quantized, only_narrowing=scale == "mixed")
    ir.save(quantized, path)
    if twin is None or alone is None:
        return False
    ir.save(twin, alone)
    return True


def _keep_from_saturating(model: ir.Model, path: Path, weights: Mapping[str, onnx.TensorProto]) -> None:
    """Round the weights again, in the file beside the graph, so that no processor's products saturate."""
    for name in [name.removesuffix("_quantized") for name in model.graph.initializers if name.endswith("_quantized")]:
        rounded, scales = round_in_pairs(onnx.numpy_helper.to_array(weights[name]))
        _put(model, f"{name}_quantized", rounded, path)
        _put(model, f"{name}_scale", scales, path)


def _put(model: ir.Model, name: str, array: npt.NDArray[Any], path: Path) -> None:
    """Give an initializer, wherever it is kept, values of the same shape and type."""
    value = model.graph.initializers[name]
    if isinstance(value.const_value, ir.ExternalTensor):
        file = path.with_name(str(value.const_value.location))
        np.memmap(file, array.dtype, "r+", value.const_value.offset or 0, array.shape)[:] = array
    else:
        value.const_value = ir.tensor(array, name=name)


def _fold_transposed_weights(graph: onnx.GraphProto) -> None:
    """Store a weight that is only read transposed, as a tied output layer's, transposed."""
    weights = {tensor.name: tensor for tensor in graph.initializer}
    for node in [n for n in graph.node if n.op_type == "Transpose" and n.input[0] in weights]:
        permutation = next(a.ints for a in node.attribute if a.name == "perm")
        array = onnx.numpy_helper.to_array(weights[node.input[0]]).transpose(permutation)
        graph.initializer.append(onnx.numpy_helper.from_array(array.copy(), node.output[0]))
        graph.node.remove(node)

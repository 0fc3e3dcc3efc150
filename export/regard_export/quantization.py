"""int8: dynamic quantisation of the matrix products, per output channel.

https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html

Activations are rounded when they come. ONNX Runtime's own operator for that finds one scale for a whole batch, so
that what an answer is depends on what is beside it. With a scale for each token it doesn't, and less is lost
(Yao et al. 2022, ZeroQuant, section 4.1: token-wise quantisation of activations), for a few more operators.

Nearly all that is lost with one scale is lost before products that narrow: what they multiply comes from an
activation function, is close to 0 for most tokens, and very large for some. So it is these that a "mixed" graph gives
scales for tokens, which costs a third of what it costs everywhere.
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
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnx_ir.tape import Tape
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.onnx_model import ONNXModel

from regard.manifest import ActivationScale
from regard_export.lowering.operands import constant, int64
from regard_export.pairs import round_in_pairs

LARGEST = 127
"""What the largest magnitude among a token's activations is rounded to."""
SMALLEST = 1e-30
"""What stands for the largest magnitude where all of a token's activations are 0."""


def quantize(path: Path, scale: ActivationScale) -> None:
    """Replace the graph at `path` (and its weights) by its int8 version."""
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
    _keep_from_saturating(quantized, path, weights)
    if scale != "tensor":
        _scale_tokens(quantized, only_narrowing=scale == "mixed")
    quantized.graph.sort()  # the quantiser leaves those that a branch reads from behind the branch
    ir.save(quantized, path)


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


def _scale_tokens(model: ir.Model, *, only_narrowing: bool) -> None:
    """Give the activations of every token, in place, a scale of their own where they are rounded, or are narrowed."""
    for node in list(model.graph):
        if node.op_type == "DynamicQuantizeLinear":
            activations, rounded = node.inputs[0], node.outputs[0]
            products = [user for user, _ in rounded.uses()]
            if only_narrowing and not all(map(_narrows, products)):
                continue
            tape = Tape()
            largest = tape.op("ReduceMax", [tape.op("Abs", [activations]), int64(tape, [-1])], {"keepdims": 1})
            largest = tape.op("Max", [largest, constant(tape, np.float32(SMALLEST))])
            unit, zero = constant(tape, np.float32(1 / LARGEST)), constant(tape, np.uint8(128))
            own = tape.op("QuantizeLinear", [tape.op("Div", [activations, largest]), unit, zero])
            model.graph.insert_after(node, tape.nodes)
            for product in products:
                _rescale(model.graph, product, own, unit, zero, largest)
    RemoveUnusedNodesPass()(model)
    model.opset_imports["com.microsoft"] = 1


def _narrows(product: ir.Node) -> bool:
    weights = product.inputs[1]
    assert weights is not None and weights.shape is not None
    inner, columns = weights.shape.numpy()
    return inner > columns


def _rescale(
    graph: ir.Graph, product: ir.Node, rounded: ir.Value, unit: ir.Value, zero: ir.Value, largest: ir.Value
) -> None:
    """Let a `MatMulInteger`, and the scales that it is multiplied by, take what was rounded token by token."""
    weights, weights_zero = product.inputs[1], product.inputs[3]
    (cast,) = product.outputs[0].consumers()
    (scaled,) = cast.outputs[0].consumers()
    scale = next(value.producer() for value in scaled.inputs if value is not None and value is not cast.outputs[0])
    assert scale is not None
    weights_scale = next(value for value in scale.inputs if value is not None and value.producer() is None)
    tape = Tape()
    inputs = [rounded, weights, unit, weights_scale, zero, weights_zero]
    exact = tape.op("MatMulIntegerToFloat", inputs, domain="com.microsoft")
    exact = tape.op("Mul", [exact, largest])
    ir.convenience.replace_nodes_and_values(graph, scaled, [scaled], tape.nodes, [scaled.outputs[0]], [exact])


def _fold_transposed_weights(graph: onnx.GraphProto) -> None:
    """Store a weight that is only read transposed, as a tied output layer's, transposed."""
    weights = {tensor.name: tensor for tensor in graph.initializer}
    for node in [n for n in graph.node if n.op_type == "Transpose" and n.input[0] in weights]:
        permutation = next(a.ints for a in node.attribute if a.name == "perm")
        array = onnx.numpy_helper.to_array(weights[node.input[0]]).transpose(permutation)
        graph.initializer.append(onnx.numpy_helper.from_array(array.copy(), node.output[0]))
        graph.node.remove(node)

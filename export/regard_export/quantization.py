"""int8: dynamic quantisation of the matrix products, per output channel.

https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html

Activations are rounded when they come. ONNX Runtime's own operator for that finds one scale for a whole batch, so
that what an answer is depends on what is beside it. With a scale for each token it doesn't, and less is lost
(Yao et al. 2022, ZeroQuant, section 4.1: token-wise quantisation of activations), for a few more operators.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnx_ir.tape import Tape
from onnxruntime.quantization import QuantType, quantize_dynamic

from regard.manifest import ActivationScale
from regard_export.lowering.operands import constant, int64

LARGEST = 127
"""What the largest magnitude among a token's activations is rounded to."""
SMALLEST = 1e-30
"""What stands for the largest magnitude where all of a token's activations are 0."""


def quantize(path: Path, scale: ActivationScale) -> None:
    """Replace the graph at `path` (and its weights) by its int8 version."""
    model = onnx.load(path)
    path.with_name(f"{path.name}.data").write_bytes(b"")  # or the int8 weights are put behind the others
    _fold_transposed_weights(model.graph)
    weights = {tensor.name for tensor in model.graph.initializer}
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
    if scale == "token":
        _scale_tokens(quantized)
    quantized.graph.sort()  # the quantiser leaves those that a branch reads from behind the branch
    ir.save(quantized, path)


def _scale_tokens(model: ir.Model) -> None:
    """Give the activations of every token, in place, a scale of their own where they are rounded."""
    for node in list(model.graph):
        if node.op_type == "DynamicQuantizeLinear":
            tape = Tape()
            activations, rounded = node.inputs[0], node.outputs[0]
            largest = tape.op("ReduceMax", [tape.op("Abs", [activations]), int64(tape, [-1])], {"keepdims": 1})
            largest = tape.op("Max", [largest, constant(tape, np.float32(SMALLEST))])
            unit, zero = constant(tape, np.float32(1 / LARGEST)), constant(tape, np.uint8(128))
            own = tape.op("QuantizeLinear", [tape.op("Div", [activations, largest]), unit, zero])
            model.graph.insert_after(node, tape.nodes)
            for product in [user for user, _ in rounded.uses()]:
                _rescale(model.graph, product, own, unit, zero, largest)
    RemoveUnusedNodesPass()(model)
    model.opset_imports["com.microsoft"] = 1


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

"""int8: dynamic quantisation of the matrix products, per output channel.

https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
"""

from __future__ import annotations

import logging
from pathlib import Path

import onnx
import onnx_ir as ir
from onnxruntime.quantization import QuantType, quantize_dynamic


def quantize(path: Path) -> None:
    """Replace the graph at `path` (and its weights) by its int8 version."""
    model = onnx.load(path)
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
    _sort(path)


def _sort(path: Path) -> None:
    """Put the nodes in order: the quantiser leaves those that a branch reads from behind the branch."""
    model = ir.load(path)
    model.graph.sort()
    ir.save(model, path)


def _fold_transposed_weights(graph: onnx.GraphProto) -> None:
    """Store a weight that is only read transposed, as a tied output layer's, transposed."""
    weights = {tensor.name: tensor for tensor in graph.initializer}
    for node in [n for n in graph.node if n.op_type == "Transpose" and n.input[0] in weights]:
        permutation = next(a.ints for a in node.attribute if a.name == "perm")
        array = onnx.numpy_helper.to_array(weights[node.input[0]]).transpose(permutation)
        graph.initializer.append(onnx.numpy_helper.from_array(array.copy(), node.output[0]))
        graph.node.remove(node)

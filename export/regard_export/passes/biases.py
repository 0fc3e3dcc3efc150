"""Biases of zeros: what some models add to the scores where they have nothing to add."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from regard_export.attention import DOMAIN

BIAS_INPUT = {"Attention": 4, "CrossAttention": 4, "AttentionWeights": 5}


def drop_zero_biases(model: ir.Model) -> None:
    """Take a bias that is all zeros away from every attention and its weights."""
    for node in model.graph:
        index = BIAS_INPUT.get(node.op_type) if node.domain == DOMAIN else None
        if index is not None and len(node.inputs) > index and _is_zero(node.inputs[index]):
            node.replace_input_with(index, None)
            while node.inputs[-1] is None:
                node.resize_inputs(len(node.inputs) - 1)


def _is_zero(value: ir.Value | None) -> bool:
    if value is None:
        return False
    producer = value.producer()
    if producer is not None and producer.op_type == "Expand":
        value = producer.inputs[0]
    constant = ir.convenience.get_const_tensor(value) if value is not None else None
    return constant is not None and not np.any(constant.numpy())

"""From a traceable module to an ONNX graph that still holds Regard's placeholder operators."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import onnx_ir as ir
import torch

from regard_export.graphs import Example, TracedGraph

OPSET = 21


def trace(graph: TracedGraph) -> ir.Model:
    """Export `graph` with `torch.onnx.export` and name its outputs as the contract does."""
    example = graph.example()
    inputs, shapes = _nested(example)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            graph.eval(),
            (),
            kwargs=inputs,
            dynamic_shapes=shapes,
            input_names=list(example.tensors),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model = program.model
    for value, name in zip(model.graph.outputs, graph.findings.output_names, strict=True):
        value.name = name
        value.shape = _open(name, value.shape)
    return model


def _open(name: str, shape: ir.Shape | None) -> ir.Shape | None:
    """Return an output's shape with a letter for a size that only a run decides."""
    if shape is None:
        return None
    if name.startswith("candidate_"):
        return ir.Shape([shape[0], "K"])
    if name.startswith("self_attention.") and shape[3] == "P":
        return ir.Shape([*shape[:3], "T"])
    return shape


def _nested(example: Example) -> tuple[dict[str, Any], dict[str, Any]]:
    """Gather `name.0`, `name.1`, ... into lists, as the modules' parameters take them."""
    dims = {
        letter: torch.export.Dim(letter, min=1)
        for varying in example.dimensions.values()
        for letter in varying.values()
    }
    inputs: dict[str, Any] = {}
    shapes: dict[str, Any] = {}
    for name, tensor in example.tensors.items():
        varying = {axis: dims[letter] for axis, letter in example.dimensions[name].items()}
        parameter, _, layer = name.partition(".")
        if layer:
            inputs.setdefault(parameter, []).append(tensor)
            shapes.setdefault(parameter, []).append(varying)
        else:
            inputs[parameter], shapes[parameter] = tensor, varying
    return inputs, shapes

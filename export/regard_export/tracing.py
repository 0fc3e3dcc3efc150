"""From a traceable module to an ONNX graph that still holds Regard's placeholder operators."""

from __future__ import annotations

import inspect
import logging
import warnings
from typing import Any

import onnx_ir as ir
import torch

from regard_export.errors import CheckpointError, ExportError
from regard_export.graphs import Graph

OPSET = 21


def trace(graph: Graph) -> ir.Model:
    """Export `graph` with `torch.onnx.export` and name its outputs as the contract does."""
    inputs, shapes = _nested(graph)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                graph.eval(),
                (),
                kwargs=inputs,
                dynamic_shapes=shapes,
                input_names=list(graph.example().tensors),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise _reason(error, type(graph.model).__name__) from error
    assert program is not None
    model = program.model
    for value, name in zip(model.graph.outputs, graph.findings.output_names, strict=True):
        value.name = name
        value.shape = _open(name, value.shape)
    return model


def _reason(error: BaseException, model: str) -> ExportError:
    """Return the error that the exporter's own was made of, as one that says what to do."""
    while error.__cause__ is not None and not isinstance(error, ExportError):
        error = error.__cause__
    if isinstance(error, ExportError):
        return error
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return CheckpointError(f"{model} can't be traced as it is; it needs an adapter in regard_export/families: {first}")


def _open(name: str, shape: ir.Shape | None) -> ir.Shape | None:
    """Return an output's shape with a letter for a size that only a run decides."""
    if shape is None:
        return None
    if name.startswith("candidate_"):
        return ir.Shape([shape[0], "K"])
    if name.startswith("self_attention.") and shape[3] == "P":
        return ir.Shape([*shape[:3], "T"])
    return shape


def _nested(graph: Graph) -> tuple[dict[str, Any], dict[str, Any]]:
    """Gather inputs as the module's parameters take them.

    `name.0`, `name.1`, ... become a list; what is no parameter by itself belongs to `source`.
    """
    example, parameters = graph.example(), inspect.signature(graph.forward).parameters
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
        elif name in parameters:
            inputs[name], shapes[name] = tensor, varying
        else:
            inputs.setdefault("source", {})[name] = tensor
            shapes.setdefault("source", {})[name] = varying
    return inputs, shapes

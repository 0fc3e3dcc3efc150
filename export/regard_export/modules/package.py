"""A module becomes a package: traced, lowered, saved, proven, and only then put in place."""

from __future__ import annotations

import json
from pathlib import Path

import onnx_ir as ir

from regard.manifest import MANIFEST_FILE, GraphSpec, TapSpec
from regard_export.errors import ExportError
from regard_export.lowering import lower
from regard_export.modules.blueprint import TOKENIZER_FILE, Blueprint
from regard_export.modules.graphs import ModuleClassifier, ModuleEncoder, ModuleGraph, ModuleStep
from regard_export.modules.parity import measure
from regard_export.package import PARITY_FILE, Options, Progress, describe, manifest_of, staging_directory
from regard_export.parity import FP32_TOLERANCE
from regard_export.passes import simplify
from regard_export.tracing import trace


def export_module(blueprint: Blueprint, output: Path, options: Options, progress: Progress = lambda _: None) -> Path:
    """Write the package `output/NAME/VERSION` of a module and return its directory.

    `progress` is called with each stage's name as it begins. Raises `ExportError`; whatever
    happens, nothing but a whole, proven package appears below `output`. A module's weights are
    exported in fp32.
    """
    if options.precision != "fp32":
        raise ExportError(f"a module is exported in fp32, not in {options.precision}")
    final = output / options.name / options.version
    if final.exists() and not options.overwrite:
        raise ExportError(f"{options.name}/{options.version} exists already; choose another version, or overwrite it")
    blueprint.module.eval()
    with staging_directory(output, final) as staging:
        graphs: dict[str, GraphSpec] = {}
        taps: list[TapSpec] = []
        for kind in _kinds(blueprint):
            graph = kind(blueprint)
            progress(f"tracing the {graph.name}")
            graphs[graph.name] = _write(graph, staging, options.target)
            taps += graph.findings.taps
        progress("proving it against the module")
        parity = measure(blueprint, {name: staging / graph.file for name, graph in graphs.items()}, tuple(taps))
        parity.require(FP32_TOLERANCE)
        report = parity.report(FP32_TOLERANCE) | {"reference": "the module itself, in PyTorch, fp32"}
        (staging / PARITY_FILE).write_text(json.dumps(report, indent=2) + "\n")
        if blueprint.tokenizer is not None:
            (staging / TOKENIZER_FILE).write_text(blueprint.tokenizer.to_str(), "utf-8")
        progress("writing the manifest")
        manifest = manifest_of(blueprint, staging, options, graphs, tuple(taps))
        (staging / MANIFEST_FILE).write_text(manifest.model_dump_json(indent=2) + "\n")
    return final


def _kinds(blueprint: Blueprint) -> tuple[type[ModuleGraph], ...]:
    return (ModuleEncoder, ModuleStep) if blueprint.generates else (ModuleClassifier,)


def _write(graph: ModuleGraph, staging: Path, target: str) -> GraphSpec:
    model = trace(graph)
    simplify(model)
    lower(model, target)
    path = staging / f"{graph.name}.onnx"
    ir.save(model, path, external_data=f"{path.name}.data")
    return describe(model, path)

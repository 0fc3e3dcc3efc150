"""A module becomes a package: traced, lowered, saved, proven, and only then put in place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from regard_export.errors import ExportError
from regard_export.graph_files import GraphFiles, Progress, describe
from regard_export.lowering import Target, lower, target_of
from regard_export.modules.blueprint import TOKENIZER_FILE, Blueprint
from regard_export.modules.graphs import ModuleClassifier, ModuleEncoder, ModuleGraph, ModuleStep
from regard_export.modules.parity import measure
from regard_export.modules.vocabulary import require_embedded
from regard_export.package import Options, seal, staging_directory
from regard_export.passes import simplify
from regard_export.places import place_of
from regard_export.shared_weights import unite_weights
from regard_export.tracing import trace

PRECISION = "fp32"


def export_module(blueprint: Blueprint, output: Path, options: Options, progress: Progress = lambda _: None) -> Path:
    """Write the package `output/NAME/VERSION` of a module and return its directory.

    `progress` is called with each stage's name as it begins. Raises `ExportError`; whatever
    happens, nothing but a whole, proven package appears below `output`. A module is exported in
    fp32, for the targets `cpu` and `portable`, and left in evaluation mode.
    """
    final = place_of(output, options.name, options.version, overwrite=options.overwrite)
    target = target_of(options.target, options.precision)
    if options.precision != PRECISION or target.separate_taps:
        raise ExportError(
            f"a module is exported in {PRECISION}, for cpu or portable, not in {options.precision} for {options.target}"
        )
    if replace(options, overwrite=False) != Options(options.name, options.version, options.target):
        raise ExportError(
            "of a module's options only name, version, target and overwrite can be chosen: leave the others out"
        )
    blueprint.module.eval()
    require_embedded(blueprint)
    with staging_directory(output, final) as staging:
        files = GraphFiles({}, ())
        for kind in (ModuleEncoder, ModuleStep) if blueprint.generates else (ModuleClassifier,):
            graph = kind(blueprint)
            progress(f"tracing the {graph.name}")
            files = _written(files, graph, staging, target)
        unite_weights(staging)
        progress("proving it against the module")
        parity = measure(blueprint, staging, files)
        parity.require()
        report = parity.report() | {"reference": "the module itself, in PyTorch, fp32"}
        tokenizer_files = {} if blueprint.tokenizer is None else {TOKENIZER_FILE: blueprint.tokenizer.to_str()}
        progress("writing the manifest")
        seal(staging, blueprint, options, files, report, tokenizer_files)
    return final


def _written(files: GraphFiles, graph: ModuleGraph, staging: Path, target: Target) -> GraphFiles:
    """Write one graph more."""
    model = trace(graph)
    simplify(model)
    lower(model, target)
    path = staging / f"{graph.name}.onnx"
    ir.save(model, path, external_data=f"{path.name}.data")
    described = describe(model, path, target.providers_of(graph.name, PRECISION))
    return GraphFiles(files.graphs | {graph.name: described}, (*files.taps, *graph.findings.taps))

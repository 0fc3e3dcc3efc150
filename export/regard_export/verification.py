"""Whether a package is what it says: its files, its graphs, and, beside its checkpoint, its parity."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from regard.manifest import MANIFEST_FILE, GraphSpec, Package
from regard_export.checkpoint import load_checkpoint
from regard_export.errors import CheckpointError, ParityError
from regard_export.graph_files import GraphFiles
from regard_export.languages import Languages
from regard_export.precision import TOLERANCES
from regard_export.proof import measure
from regard_export.rounding import eager_differences


def faults(package: Package) -> Iterator[str]:
    """Yield what is wrong with a package whose listed files have their checksums, in words."""
    manifest = package.manifest
    listed = {*manifest.files, MANIFEST_FILE}
    for path in sorted(package.directory.iterdir()):
        if path.name not in listed:
            yield f"{path.name} isn't listed in the manifest"
    text = manifest.text
    names: list[str | None] = [graph.file for graph in manifest.graphs.values()]
    if text is not None:
        names += [text.tokenizer_file, text.source_pieces_file, text.target_pieces_file]
    for name in names:
        if name is not None and name not in manifest.files:
            yield f"{name} is named in the manifest, but not listed with a checksum"
    for name, graph in manifest.graphs.items():
        if graph.file in manifest.files:
            yield from _faults_of_graph(name, graph, package.path(graph.file))
    for tap in manifest.every_tap:
        giver = manifest.graphs.get(manifest.graphs[tap.graph].tap_graph or tap.graph)
        if giver is None or tap.output not in {tensor.name for tensor in giver.outputs}:
            yield f"the tap {tap.name} is no output of the graph {tap.graph}"


def _faults_of_graph(name: str, spec: GraphSpec, path: Path) -> Iterator[str]:
    graph = onnx.load(path, load_external_data=False).graph
    for kind, values, tensors in (("inputs", graph.input, spec.inputs), ("outputs", graph.output, spec.outputs)):
        found, said = {value.name for value in values}, {tensor.name for tensor in tensors}
        if found != said:
            yield f"the graph {name} has other {kind} than its manifest says: {', '.join(sorted(found ^ said))}"


@dataclass(frozen=True)
class Comparison:
    """A package beside its checkpoint: the report, as an export writes it, and what is wrong."""

    report: dict[str, Any] | None
    """None if the package's graphs can't be run."""
    fault: str | None


def compare(package: Package, checkpoint_directory: Path, languages: Languages) -> Comparison:
    """Compare a package's graphs with the eager model once more.

    Raises `CheckpointError` if the checkpoint isn't the one that the package was made from.
    """
    manifest = package.manifest
    checkpoint = load_checkpoint(checkpoint_directory, languages)
    ours, theirs = manifest.source, checkpoint.source
    if ours != theirs:
        raise CheckpointError(
            f"{checkpoint_directory.name} isn't what {manifest.name}/{manifest.version} was made from: "
            f"{theirs.architecture} with weights {theirs.weights_sha256[:12]}…, not "
            f"{ours.architecture} with {ours.weights_sha256[:12]}…"
        )
    if (checkpoint.generation, checkpoint.transcription) != (manifest.generation, manifest.transcription):
        raise CheckpointError(
            f"{manifest.name}/{manifest.version} was made with other settings or languages than "
            f"{checkpoint_directory.name} has"
        )
    files = GraphFiles(manifest.graphs, manifest.every_tap)
    try:
        rounding = eager_differences(checkpoint, files.taps, manifest.precision)
        parity = measure(checkpoint, package.directory, files, TOLERANCES[manifest.precision], rounding)
    except ParityError as error:
        return Comparison(None, str(error))
    except Exception as error:  # the runtime's have no class in common
        return Comparison(None, f"its graphs can't be run: {str(error).splitlines()[0]}")
    try:
        parity.require()
    except ParityError as error:
        return Comparison(parity.report(), str(error).removesuffix("; no package"))
    return Comparison(parity.report(), None)

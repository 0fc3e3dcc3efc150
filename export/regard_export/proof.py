"""The proof that goes into every package: the graphs against the eager model.

Reference: the same weights in Transformers with `attn_implementation="eager"`. Inputs are random
tokens, right-padded to ragged lengths (one row of a single token among them), or random pixels. The
rows of a decoder are decoded side by side at different positions, with one and with four hypotheses
a request, through caches that are bound in place and filled with garbage beyond every row's length.
Graphs that take interventions are compared once with none of them, and once with some at random. Weights times
norms are compared with an eager model whose values are multiplied by its own matrices, in units of the largest norm.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from regard.manifest import GraphSpec, TapSpec
from regard_export.checkpoint import Checkpoint
from regard_export.generator_proof import GeneratorProof
from regard_export.graph_files import GraphFiles
from regard_export.intervention_proof import Plan, compare_interventions
from regard_export.parity import Parity
from regard_export.prompt_proof import PromptProof
from regard_export.reader_proof import compare_reader
from regard_export.samples import Source
from regard_export.stepping import open_session

STAGES = ("encoder", "prefill", "step", "classifier", "text_encoder", "image_encoder")


def measure(
    checkpoint: Checkpoint,
    directory: Path,
    files: GraphFiles,
    tolerance: float | None,
    eager_differences: Mapping[str, float],
) -> Parity:
    """Compare the graphs in `directory` with the eager model; the plain ones first, where others give the taps.

    They run on ONNX Runtime's CPU provider, whatever they are meant for.
    """
    meant = {provider for graph in files.graphs.values() for provider in graph.providers}
    parity = Parity(tolerance, tuple(sorted(meant - {"cpu"})), eager_differences)
    plain = {name: graph for name, graph in files.graphs.items() if name in STAGES}
    if any(graph.tap_graph for graph in plain.values()):
        _compare(checkpoint, _files(plain, directory), (), parity)
    tapped = {name: files.graphs[graph.tap_graph or name] for name, graph in plain.items()}
    unweighted = tuple(tap for tap in files.taps if tap.weighting is None)
    _compare(checkpoint, _files(tapped, directory), unweighted, parity)
    if unweighted != files.taps:
        compare_interventions(checkpoint, _files(tapped, directory), files.taps, parity, Plan.idle)
    intervened = {name: files.graphs[graph.intervened_graph] for name, graph in plain.items() if graph.intervened_graph}
    if intervened:
        theirs = Parity(tolerance, (), eager_differences)
        _compare(checkpoint, _files(intervened, directory), unweighted, theirs)
        compare_interventions(checkpoint, _files(intervened, directory), files.taps, theirs, Plan.drawn)
        parity.include_intervened(theirs)
    return parity


def _compare(checkpoint: Checkpoint, files: Mapping[str, Path], taps: tuple[TapSpec, ...], parity: Parity) -> None:
    with torch.no_grad():
        if checkpoint.generation is None:
            for graph in checkpoint.sources:
                compare_reader(checkpoint, graph, open_session(files[graph]), taps, parity)
        elif "prefill" in files:
            sessions = {name: open_session(file) for name, file in files.items()}
            for sample in checkpoint.inputs.samples():
                source = Source.of(checkpoint.inputs, sample)
                PromptProof(checkpoint, checkpoint.generation, sessions, taps, parity, source).compare()
        else:
            GeneratorProof(checkpoint, checkpoint.generation, files, taps, parity).compare()


def _files(graphs: Mapping[str, GraphSpec], directory: Path) -> dict[str, Path]:
    return {name: directory / graph.file for name, graph in graphs.items()}

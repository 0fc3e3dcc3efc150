"""The proof of graphs that answer in one step, and of the maps of any graph that reads a source."""

from __future__ import annotations

import onnxruntime as ort
import torch

from regard.manifest import TapSpec
from regard_export.checkpoint import Checkpoint
from regard_export.parity import Parity
from regard_export.samples import Source, answer_of, expected_weights
from regard_export.stepping import Array, run


def compare_maps(name: str, ours: Array, reference: torch.Tensor, lengths: Array, parity: Parity) -> None:
    """Compare [R, H, S, S] where queries and keys are real; beyond, a map means nothing."""
    for row, length in enumerate(lengths):
        parity.note(name, ours[row, :, :length], reference[row, :, :length])


def compare_reader(
    checkpoint: Checkpoint, graph: str, session: ort.InferenceSession, taps: tuple[TapSpec, ...], parity: Parity
) -> None:
    """Note every difference of the answers of `graph`, and of its maps, on all samples of its inputs."""
    inputs = checkpoint.sources[graph]
    for sample in inputs.samples():
        compare_answer(checkpoint, graph, session, Source.of(inputs, sample), taps, parity)


def compare_answer(
    checkpoint: Checkpoint,
    graph: str,
    session: ort.InferenceSession,
    source: Source,
    taps: tuple[TapSpec, ...],
    parity: Parity,
) -> None:
    """Note every difference of the answer of `graph` to one batch, and of its maps."""
    answer = answer_of(checkpoint, source)
    got = run(session, source.feeds)
    for ours, expected in zip(source.real(got[answer.name]), source.real(answer.tensor), strict=True):
        parity.note(answer.name, ours, expected)
    for tap in (tap for tap in taps if tap.graph == graph):
        compare_maps(tap.name, got[tap.output], expected_weights(tap, answer.attentions), source.lengths, parity)

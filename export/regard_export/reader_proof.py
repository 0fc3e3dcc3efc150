"""The proof of graphs that answer in one step, and of the maps of any graph that reads a source."""

from __future__ import annotations

import onnxruntime as ort
import torch

from regard.manifest import TapSpec
from regard_export.checkpoint import Checkpoint
from regard_export.parity import Parity
from regard_export.samples import NO_NORMS, Norms, Source, answer_of, expected_weights, unit_of
from regard_export.stepping import Array, run


def compare_maps(name: str, ours: Array, reference: torch.Tensor, rows: Array, lengths: Array, parity: Parity) -> None:
    """Compare the maps [A, H, S, S] of the `rows` [A] that ask with [R, H, S, S], where queries are real."""
    for own, row in zip(ours, rows, strict=True):
        parity.note(name, own[:, : lengths[row]], reference[row, :, : lengths[row]])


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
    norms: Norms = NO_NORMS,
) -> None:
    """Note every difference of the answer of `graph` to one batch, and of its maps, whoever asks for them.

    `norms` are filled in while the eager model answers.
    """
    answer = answer_of(checkpoint, source)
    for rows, feeds in source.askings():
        got = run(session, feeds)
        for ours, expected in zip(source.real(got[answer.name]), source.real(answer.tensor), strict=True):
            parity.note(answer.name, ours, expected)
        for tap in (tap for tap in taps if tap.graph == graph):
            weights, unit = expected_weights(tap, answer.attentions, norms), unit_of(tap, norms)
            compare_maps(tap.name, got[tap.output] / unit, weights / unit, rows, source.lengths, parity)

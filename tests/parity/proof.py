"""A package at work in the product's own engine, held to its eager model: what a row of the certificate is made of.

Sources of 1 to 128 tokens, or images, are asked for alone, and ten at a time of an engine that has
rows for five: padding makes them equally long, and who waits takes the place of whoever has ended, so
that the rows of one step stand at different positions. Every source is continued greedily, and by a
beam search of three hypotheses; the eager model reads each source alone, without padding.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle, product
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from regard.config import EngineSettings
from regard.engine.observer import SilentObserver
from regard.engine.request import (
    Classification,
    ClassifyRequest,
    FloatArray,
    GeneratedSequence,
    GenerateRequest,
    Generation,
)
from regard.engine.search.options import GenerationOptions, options_of
from regard.engine.search.rules import Rules
from regard.engine.source import Pixels, Sound, Source, Tokens
from regard.manifest import GenerationSpec, Manifest, Package, SimilaritySpec, Task
from regard.rpc.similarity import logits_of
from regard.worker import Worker

from .eager import Computed, Eager, EagerCheckpoint
from .reference import Arguments, Expected
from .verdicts import TIE_MARGIN, log_probabilities_differ, same_tokens

LENGTHS = (128, 1, 5, 37, 64, 2, 100, 17, 9, 3)
STEPS = (32, 7, 32, 19, 32, 11, 32, 32, 5, 32)
"""The most tokens that each source is continued by: they end at different times."""
BATCH = 5
ALONE = 3
"""How many of the sources are asked for alone, too."""
HYPOTHESES = (1, 3)
LIKELIEST = 32
"""How many of the likeliest tokens of every step are compared, as log-probabilities."""
PEAK_KEYS = 8
"""The least number of keys among which a largest weight says something."""
SEED = 4


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """A source for the engine and for the eager model and, if it is to be continued, how, and to what."""

    source: Source
    arguments: Arguments
    options: GenerationOptions | None
    expected: Expected | None


@dataclass
class Proof:
    """What became of one package."""

    differences: dict[str, float] = field(default_factory=dict)
    """The largest from the eager model: of `logits`, and of each kind of attention."""
    tokens: int = 0
    ties: int = 0
    """Continuations that differ where the eager model saw two tokens less than 1e-4 apart."""
    strays: int = 0
    """Continuations that differ elsewhere."""
    joined: int = 0
    """Batches of requests that joined while others were being decoded."""
    peaks: dict[str, list[float]] = field(default_factory=dict)
    """The largest weights of queries, by the kind of attention."""

    @property
    def peak(self) -> float:
        """The median largest weight, of the kind of attention where it is least."""
        return min((float(np.median(weights)) for weights in self.peaks.values()), default=np.nan)

    def note(self, name: str, difference: float) -> None:
        """Remember the largest difference; what isn't a number is infinitely far off."""
        self.differences[name] = max(self.differences.get(name, 0.0), np.inf if np.isnan(difference) else difference)


def prove(package: Package, eager: Eager) -> Proof:
    """Ask a package's engine everything, and compare."""
    proof = Proof()
    manifest = package.manifest
    for hypotheses in HYPOTHESES if manifest.generation else (1,):
        questions = list(_questions(manifest, eager, hypotheses))
        for group in (questions, *([question] for question in _alone(questions))):
            answers, joined = _ask(package, group, max_rows=BATCH * hypotheses)
            proof.joined += joined
            for question, answer in zip(group, answers, strict=True):
                _judge(question, answer, manifest, eager, proof)
            if manifest.similarity is not None and isinstance(eager, EagerCheckpoint):
                _compare_scores(group, answers, manifest.similarity, eager, proof)
    return proof


def _alone(questions: Sequence[Question]) -> list[Question]:
    """Return the first questions of every kind of source."""
    kinds = {type(question.source) for question in questions}
    return [one for kind in kinds for one in [each for each in questions if type(each.source) is kind][:ALONE]]


def _questions(manifest: Manifest, eager: Eager, hypotheses: int) -> Iterable[Question]:
    spec = manifest.generation
    for source, steps in zip(_sources(manifest, eager), cycle(STEPS), strict=False):
        arguments = eager.arguments(source)
        if spec is None:
            yield Question(source, arguments, None, None)
            continue
        given: dict[str, Any] = {"max_new_tokens": steps, "top_logprobs": LIKELIEST}
        if hypotheses > 1:
            given |= {"num_beams": hypotheses, "num_return_sequences": hypotheses}
        if (
            spec.forced_bos_token_id is not None and manifest.task is not Task.COMPLETION
        ):  # the language that it was exported for
            given["forced_bos_token_id"] = spec.forced_bos_token_id
        options = options_of(spec, given, len(eager.prompt(arguments)))
        yield Question(source, arguments, options, eager.search(arguments, given))


def _sources(manifest: Manifest, eager: Eager) -> Iterable[Source]:
    """Yield random texts of all lengths, or images or sounds of noise."""
    random = np.random.default_rng(SEED)
    ends = [spec.eos_token_ids[0]] if (spec := manifest.generation) and manifest.task is not Task.COMPLETION else []
    for length in LENGTHS:
        if manifest.audio is not None:
            features = random.standard_normal((manifest.audio.mel_bins, manifest.audio.frames))
            yield Sound(features.astype(np.float32), manifest.audio.positions)
        elif eager.vocabulary_size:
            yield Tokens(_tokens(manifest, eager.vocabulary_size, length, ends, random))
        if manifest.image is not None:
            pixels = random.standard_normal((3, manifest.image.height, manifest.image.width))
            yield Pixels(pixels.astype(np.float32), manifest.image.positions)


def _tokens(
    manifest: Manifest, vocabulary_size: int, length: int, ends: Sequence[int], random: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Return random tokens [S]; the last two of a vocabulary whose texts are compared begin and end every text.

    Where padding is read, every text is as long as can be, two tokens of padding at least among them.
    """
    if manifest.similarity is None:
        return np.array([*random.integers(4, vocabulary_size, length - len(ends)), *ends], np.int64)
    assert manifest.text is not None
    start, end = vocabulary_size - 2, vocabulary_size - 1
    most = manifest.text.max_source_tokens
    assert most is not None
    words = random.integers(0, start, min(length, most - 2))
    if manifest.text.padded_to is not None:
        return np.array([*words, *[manifest.text.pad_token_id] * (most - len(words))], np.int64)
    return np.array([start, *words, end], np.int64)


class _Joins(SilentObserver):
    """Counts the encoder's runs between two decoding steps."""

    def __init__(self) -> None:
        self.count = 0
        self._since_step: int | None = None

    def ran(self, graph: str, rows: int, tokens: int, seconds: float) -> None:
        """Note one run of a graph."""
        if graph == "step":
            self.count += self._since_step or 0
            self._since_step = 0
        elif self._since_step is not None:
            self._since_step += 1


def _ask(
    package: Package, questions: Sequence[Question], max_rows: int
) -> tuple[list[Generation | Classification], int]:
    """Return the engine's answers to questions that come all at once, and how many batches joined in mid-run."""
    joins = _Joins()
    worker = Worker(package, EngineSettings(max_rows=max_rows, intra_op_threads=1), joins)
    taps = frozenset(tap.name for tap in package.manifest.taps)

    async def ask() -> list[Generation | Classification]:
        requests = (
            GenerateRequest(one.source, one.options, taps) if one.options else ClassifyRequest(one.source, taps)
            for one in questions
        )
        return list(await asyncio.gather(*map(worker.run, requests)))

    worker.start()
    try:
        return asyncio.run(ask()), joins.count
    finally:
        worker.stop()


def _judge(
    question: Question, answer: Generation | Classification, manifest: Manifest, eager: Eager, proof: Proof
) -> None:
    if isinstance(answer, Classification):
        computed = eager.compute(question.arguments)
        proof.note("embeddings" if manifest.similarity else "logits", _difference(answer.output, computed.logits))
        _compare_maps(answer.taps, computed, proof)
        return
    assert manifest.generation and question.options and question.expected
    _compare_tokens(answer.sequences, question.expected, manifest.generation, proof)
    for sequence in answer.sequences:
        computed = eager.compute(question.arguments, sequence.token_ids)
        rules = Rules.of(question.options, manifest.generation, eager.prompt(question.arguments))
        forced = [rules.forced(at) is not None for at in range(len(sequence.token_ids))]
        proof.note("logits", log_probabilities_differ(sequence, computed.logits.log_softmax(-1), forced))
        _compare_maps(sequence.taps, computed, proof)


def _compare_scores(
    questions: Sequence[Question],
    answers: Sequence[Generation | Classification],
    spec: SimilaritySpec,
    eager: EagerCheckpoint,
    proof: Proof,
) -> None:
    """Compare the logits of every image with every text."""
    asked = zip(questions, answers, strict=True)
    outputs = [(one, answer.output) for one, answer in asked if isinstance(answer, Classification)]
    images = [pair for pair in outputs if isinstance(pair[0].source, Pixels)]
    texts = [pair for pair in outputs if isinstance(pair[0].source, Tokens)]
    for (image, seen), (text, meant) in product(images, texts):
        ours = logits_of(spec, seen[None].astype(np.float64), meant[None].astype(np.float64))
        proof.note("logits", _difference(ours, eager.score(image.arguments, text.arguments)))


def _compare_tokens(
    sequences: Sequence[GeneratedSequence], expected: Expected, spec: GenerationSpec, proof: Proof
) -> None:
    ours = [sequence.token_ids for sequence in sequences]
    proof.tokens += sum(map(len, ours))
    if len(ours) != len(expected.sequences):
        proof.strays += 1
    elif not same_tokens(ours, expected.sequences, spec.pad_token_id):
        tied = expected.excuse(ours) <= TIE_MARGIN
        proof.ties += tied
        proof.strays += not tied


def _compare_maps(taps: Mapping[str, FloatArray], computed: Computed, proof: Proof) -> None:
    for name, weights in taps.items():
        expected = computed.maps[name]
        stack, attention, _layer = name.split(".")
        kind = f"{'encoder' if stack.endswith('encoder') else stack} {attention}"
        proof.note(kind, _difference(weights, expected))
        proof.peaks.setdefault(kind, []).extend(_peaks(kind, expected.numpy()))


def _difference(ours: FloatArray, theirs: torch.Tensor) -> float:
    """Return the largest absolute difference; arrays of unlike shapes have nothing in common."""
    expected = theirs.numpy()
    return float(np.abs(ours - expected).max()) if ours.shape == expected.shape else np.inf


def _peaks(kind: str, weights: FloatArray) -> list[float]:
    """Return the largest weight of the queries of [H, Q, K] that see many keys, and not themselves alone."""
    if kind in ("decoder self", "prompt self"):  # the first see few
        weights = weights[:, PEAK_KEYS - 1 :]
    if weights.shape[-1] < PEAK_KEYS or weights.size == 0:
        return []
    largest = weights.max(-1)
    if kind == "encoder self":
        largest = largest[np.diagonal(weights, axis1=1, axis2=2) < 1]
    return list(largest.ravel().tolist())

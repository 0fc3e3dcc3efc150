"""Which heads tell what translates what: scored one by one, put together, and written into the package."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import get_args

import numpy as np
import numpy.typing as npt

from regard.manifest import AlignmentHead, AlignmentSpec, links
from regard_export.alignment.bitext import Gold, Link, Pair, error_rate
from regard_export.alignment.forcing import Forcer
from regard_export.alignment.statistical import silver
from regard_export.errors import ExportError

MOST_PAIRS = 400
MOST_WORDS = 60
MOST_JOINED = 4
MOST_HEADS = 8
LEAST_GAIN = 0.001
TENSIONS = (0.0, 1.0, 2.0, 3.0, 5.0)
METHODS: tuple[links.Method, ...] = get_args(links.Method)

Floats = npt.NDArray[np.float32]
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Calibration:
    """What was chosen, the silver AER of every head by itself, and of every method and tension."""

    spec: AlignmentSpec
    heads: dict[AlignmentHead, float]
    methods: dict[tuple[links.Method, float], float]


class _Bench:
    """Pairs side by side, padded: [heads, pairs, T, S], with the silver links that choices are judged by."""

    def __init__(self, weights: Sequence[Floats], silver_links: Sequence[Gold]) -> None:
        targets, sources = (max(one.shape[axis] for one in weights) for axis in (1, 2))
        self.weights = np.zeros((len(weights[0]), len(weights), targets, sources), np.float32)
        self._sure, self._possible = (np.zeros((len(weights), targets, sources), np.bool_) for _ in range(2))
        self._shapes = [one.shape[1:] for one in weights]
        for place, (one, known) in enumerate(zip(weights, silver_links, strict=True)):
            self.weights[:, place, : one.shape[1], : one.shape[2]] = one
            for mask, marked in ((self._sure, known.sure), (self._possible, known.possible)):
                for source, target in marked:
                    mask[place, target, source] = True

    def prior(self, tension: float) -> npt.NDArray[np.float64]:
        """Return the diagonal's prior of every pair [pairs, T, S]."""
        prior = np.zeros(self._sure.shape)
        for place, (targets, sources) in enumerate(self._shapes):
            prior[place, :targets, :sources] = links.diagonal(targets, sources, tension)
        return prior

    def judge(self, chosen: Iterable[int], method: links.Method, prior: npt.NDArray[np.float64] | None = None) -> float:
        """Return the error rate of the mean of the `chosen` heads."""
        found = links.link(links.balance(self.weights[list(chosen)].mean(axis=0), prior), method)
        right = (found & self._sure).sum() + (found & self._possible).sum()
        return float(1 - right / (found.sum() + self._sure.sum()))


def calibrate(forcer: Forcer, pairs: Sequence[Pair], progress: Progress = lambda _: None) -> Calibration:
    """Choose heads, method and tension by the links of a statistical aligner that is trained on all of `pairs`.

    Heads are added one by one, each time the one whose mean with those before agrees best, until
    none helps; then method and tension are chosen together. At most `MOST_PAIRS` pairs are decoded.
    """
    progress("training a statistical aligner")
    passages = [passage for passage in _passages(pairs, silver(pairs)) if forcer.fits(passage[0])]
    if not passages:
        raise ExportError(
            f"no pair of the bitext has at most {MOST_WORDS} words on either side, and fits the model's positions"
        )
    progress(f"decoding {len(passages)} passages")
    bench = _Bench(list(forcer.weights([pair for pair, _ in passages])), [known for _, known in passages])
    progress("choosing heads")
    alone = [bench.judge([head], "argmax") for head in range(len(forcer.heads))]
    chosen = _choose(bench, alone)
    priors = {tension: bench.prior(tension) for tension in TENSIONS}
    methods = {
        (method, tension): bench.judge(chosen, method, priors[tension])
        for method, tension in itertools.product(METHODS, TENSIONS)
    }
    method, tension = min(methods, key=lambda one: (methods[one], one[1]))
    spec = AlignmentSpec(
        heads=tuple(forcer.heads[head] for head in chosen),
        method=method,
        tension=tension,
        pairs=len(passages),
        silver_aer=round(methods[method, tension], 4),
    )
    return Calibration(spec, dict(zip(forcer.heads, alone, strict=True)), methods)


def measure(forcer: Forcer, spec: AlignmentSpec, pairs: Sequence[Pair], gold: Sequence[Gold]) -> float:
    """Return the alignment error rate of `spec` against links that people made."""
    if len(pairs) != len(gold):
        raise ExportError(f"there are {len(pairs)} sentence pairs, but {len(gold)} lines of gold links")
    return error_rate(aligned(forcer.heads, spec, forcer.weights(pairs)), gold)


def aligned(heads: Sequence[AlignmentHead], spec: AlignmentSpec, decoded: Iterable[Floats]) -> Iterable[set[Link]]:
    """Yield the links of each pair, from what each of `heads` gave while it was decoded."""
    chosen = [heads.index(head) for head in spec.heads]
    for weights in decoded:
        mask, _ = spec.align(weights[chosen].mean(axis=0))
        yield {(int(source), int(target)) for target, source in np.argwhere(mask)}


def _passages(pairs: Sequence[Pair], known: Sequence[Gold]) -> list[tuple[Pair, Gold]]:
    """Return passages of 1, 2, 3 and so on to `MOST_JOINED` pairs in turn, with their links.

    Bitexts are often of short sentences, and heads that tell them apart may get lost in long ones.
    """
    every = max(len(pairs) // (MOST_PAIRS * (MOST_JOINED + 1) // 2), 1)
    following = iter(list(zip(pairs, known, strict=True))[::every])
    passages: list[tuple[Pair, Gold]] = []
    for length in itertools.cycle(range(1, MOST_JOINED + 1)):
        parts = list(itertools.islice(following, length))
        if not parts or len(passages) == MOST_PAIRS:
            return passages
        passage = reduce(_join, parts)
        if max(len(side.spans) for side in passage[0]) <= MOST_WORDS:
            passages.append(passage)
    return passages


def _join(left: tuple[Pair, Gold], right: tuple[Pair, Gold]) -> tuple[Pair, Gold]:
    (source, target), ours = left
    sources, targets = len(source.spans), len(target.spans)

    def moved(links: frozenset[Link]) -> frozenset[Link]:
        return frozenset((from_ + sources, to + targets) for from_, to in links)

    theirs = right[1]
    gold = Gold(ours.sure | moved(theirs.sure), ours.possible | moved(theirs.possible))
    return (source.joined(right[0][0]), target.joined(right[0][1])), gold


def _choose(bench: _Bench, alone: Sequence[float]) -> list[int]:
    chosen: list[int] = []
    best = 1.0
    ranked = sorted(range(len(alone)), key=lambda head: alone[head])[: 4 * MOST_HEADS]
    while len(chosen) < min(MOST_HEADS, len(ranked)):
        rates = {head: bench.judge([*chosen, head], "argmax") for head in ranked if head not in chosen}
        head = min(rates, key=lambda one: rates[one])
        if rates[head] > best - LEAST_GAIN:
            break
        chosen.append(head)
        best = rates[head]
    return chosen

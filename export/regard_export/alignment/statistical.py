"""A statistical word aligner: links to choose heads by, without anyone having made any.

IBM Model 1 (Brown et al. 1993) whose uniform prior over source places gives way to one that falls
off the diagonal, and a null word of fixed share (Dyer et al. 2013, A simple, fast, and effective
reparameterization of IBM Model 2), trained in both directions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from regard_export.alignment.bitext import Gold, Link, Pair

ITERATIONS = 5
TENSION = 4.0
NULL_SHARE = 0.08

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Model:
    """How the words of a bitext are joined up, and with which `share` of its target word's probability [C] each.

    Candidate c joins target word `target[c]`, counted through the whole bitext, with word `place[c]`
    of the source sentence; `null` [words] is the share of no source word.
    """

    target: Indices
    place: Indices
    share: Floats
    null: Floats

    def best(self) -> dict[int, int]:
        """Return each target word's likeliest source place; a word likeliest of no source word has none."""
        order = np.lexsort((-self.share, self.target))
        first = order[np.r_[True, np.diff(self.target[order]) > 0]] if len(order) else order
        kept = first[self.share[first] > self.null[self.target[first]]]
        return dict(zip(self.target[kept].tolist(), self.place[kept].tolist(), strict=True))


def silver(pairs: Sequence[Pair]) -> list[Gold]:
    """Return links for each pair: sure what both directions find, possible what either does."""
    sources, targets = (_vocabulary_ids([pair[side].words for pair in pairs]) for side in (0, 1))
    forward = _links(train(sources, targets), targets)
    backward = [{(target, source) for source, target in links} for links in _links(train(targets, sources), sources)]
    return [
        Gold(frozenset(ours & theirs), frozenset(ours | theirs)) for ours, theirs in zip(forward, backward, strict=True)
    ]


def links_of(pairs: Sequence[Pair]) -> list[set[Link]]:
    """Return for each pair the likeliest source word of each target word, if that is likelier than none."""
    sources, targets = (_vocabulary_ids([pair[side].words for pair in pairs]) for side in (0, 1))
    return _links(train(sources, targets), targets)


def train(sources: Sequence[Indices], targets: Sequence[Indices], tension: float = TENSION) -> Model:
    """Train on sentences of word ids and return the last iteration's posterior of every candidate."""
    source_words, target_words, target, place, distance = _candidates(sources, targets)
    pair, pair_of = np.unique(source_words * (target_words.max() + 1) + target_words, return_inverse=True)
    source_of = pair // (target_words.max() + 1)
    prior = np.exp(-tension * distance)
    words = np.concatenate(targets)
    prior *= (1 - NULL_SHARE) / np.bincount(target, prior, len(words))[target]
    translation, of_null = np.full(len(pair), 1.0 / len(pair)), np.full(words.max() + 1, 1.0 / len(pair))
    for _ in range(ITERATIONS):
        share, null = prior * translation[pair_of], NULL_SHARE * of_null[words]
        total = np.bincount(target, share, len(words)) + null
        share, null = share / total[target], null / total
        counts = np.bincount(pair_of, share, len(pair))
        translation = counts / np.bincount(source_of, counts)[source_of]
        nulls = np.bincount(words, null)
        of_null = nulls / nulls.sum()
    return Model(target, place, share, null)


def _candidates(
    sources: Sequence[Indices], targets: Sequence[Indices]
) -> tuple[Indices, Indices, Indices, Indices, Floats]:
    """Return for every two words of a pair: both ids, the target's number, the source's place, their distance."""
    parts: list[tuple[npt.NDArray[np.generic], ...]] = []
    first = 0
    for source, target in zip(sources, targets, strict=True):
        rows, columns = np.indices((len(target), len(source)))
        distance = np.abs((rows + 0.5) / len(target) - (columns + 0.5) / len(source))
        parts.append(
            (source[columns].ravel(), target[rows].ravel(), (rows + first).ravel(), columns.ravel(), distance.ravel())
        )
        first += len(target)
    joined = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return joined[0], joined[1], joined[2], joined[3], joined[4]


def _vocabulary_ids(sentences: Sequence[Sequence[str]]) -> list[Indices]:
    ids: dict[str, int] = {}
    return [np.array([ids.setdefault(word.casefold(), len(ids)) for word in words], np.int64) for words in sentences]


def _links(model: Model, targets: Sequence[Indices]) -> list[set[Link]]:
    best, first, found = model.best(), 0, []
    for target in targets:
        found.append({(best[first + at], at) for at in range(len(target)) if first + at in best})
        first += len(target)
    return found

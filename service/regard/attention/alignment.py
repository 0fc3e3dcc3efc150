"""Word alignment: which words of a translation go with which of its source, read from cross-attention."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from regard.attention.axes import Passage
from regard.attention.heads import FloatArray
from regard.attention.health import coverage
from regard.manifest import AlignmentSpec
from regard.text.segment import Segment
from regard.text.words import Word, words_of


@dataclass(frozen=True, slots=True)
class Link:
    """The places of a source word and a target word, and the link's weight, from 0 to 1."""

    source: int
    target: int
    weight: float


@dataclass(frozen=True, slots=True)
class Alignment:
    """The words of both sides, none of them special tokens, and their links, in order of target and source.

    `coverage` tells of each source word how much attention all target words together paid to it, 1 at
    most; `confidence` of each target word the probability of its tokens, given all before them.
    """

    source_words: tuple[Segment, ...]
    target_words: tuple[Segment, ...]
    links: tuple[Link, ...]
    coverage: tuple[float, ...]
    confidence: tuple[float, ...]


def align(
    spec: AlignmentSpec,
    weights: FloatArray,
    source: Passage,
    target: Passage,
    log_probabilities: Sequence[float],
    copied: Mapping[int, int] | None = None,
) -> Alignment:
    """Return the alignment of two texts from the mean of the alignment heads, [T, S] tokens.

    The weights of a word's tokens are summed over source words and averaged over target words. The
    `log_probabilities` are those of the target's T tokens. A target word with a token that was `copied` from
    a source word, by the places of both, is linked to that word alone.
    """
    sources, targets = spoken_words(source), spoken_words(target)
    pooled = np.array(
        [[weights[np.ix_(row.tokens, column.tokens)].sum(axis=1).mean() for column in sources] for row in targets]
    ).reshape(len(targets), len(sources))
    linked, shares = spec.align(pooled)
    for row, word in enumerate(targets):
        places = [copied[token] for token in word.tokens if copied and token in copied]
        if places:
            linked[row] = False
            linked[row, places] = True
    return Alignment(
        source_words=tuple(word.segment for word in sources),
        target_words=tuple(word.segment for word in targets),
        links=tuple(
            Link(int(column), int(row), float(shares[row, column])) for row, column in np.argwhere(linked).tolist()
        ),
        coverage=tuple(coverage(pooled).tolist()),
        confidence=tuple(math.exp(math.fsum(log_probabilities[token] for token in word.tokens)) for word in targets),
    )


def spoken_words(passage: Passage) -> Sequence[Word]:
    """Return the words that stand somewhere: neither special tokens nor what a cut left nothing of."""
    words = words_of(passage.text, passage.segments)
    return [word for word in words if not word.segment.special and word.segment.start < word.segment.end]

"""Word alignment: which words of a translation go with which of its source, read from cross-attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from regard.attention.axes import Passage
from regard.attention.heads import FloatArray, mean_of_heads
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
    """The words of both sides, none of them special tokens, and their links, in order of target and source."""

    source_words: tuple[Segment, ...]
    target_words: tuple[Segment, ...]
    links: tuple[Link, ...]


def align(spec: AlignmentSpec, taps: Mapping[str, FloatArray], source: Passage, target: Passage) -> Alignment:
    """Return the alignment of two texts from the taps of the `target`'s decoding.

    The weights of a word's tokens are summed over source words and averaged over target words.
    """
    weights = mean_of_heads(spec, taps)
    sources, targets = _words(source), _words(target)
    pooled = np.array(
        [[weights[np.ix_(row.tokens, column.tokens)].sum(axis=1).mean() for column in sources] for row in targets]
    ).reshape(len(targets), len(sources))
    linked, shares = spec.align(pooled)
    return Alignment(
        source_words=tuple(word.segment for word in sources),
        target_words=tuple(word.segment for word in targets),
        links=tuple(
            Link(int(column), int(row), float(shares[row, column])) for row, column in np.argwhere(linked).tolist()
        ),
    )


def _words(passage: Passage) -> Sequence[Word]:
    """Return the words that stand somewhere: neither special tokens nor what a cut left nothing of."""
    words = words_of(passage.text, passage.segments)
    return [word for word in words if not word.segment.special and word.segment.start < word.segment.end]

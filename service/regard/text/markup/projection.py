"""Where the nodes of a document stand in its translation, by the words' links.

1. A word of the translation is an element's if most of the weight of its links is with the element's words.
2. An element stands over the smallest range that holds all of its words, within its parent's range.
   Heavier siblings choose first; another gets what it has in the free stretch that holds most of its weight.
3. Words without a link that stand between words of an element are the element's; so are those at
   an edge of its parent, if in the source it begins or ends with its parent. Others stay outside.
4. An element of words without a link takes the words without a link at the gap where it stands.
5. Marks, and elements without words, stand at the gap that the fewest links cross: those from words
   before it to words behind, and the other way round; each word counts half as much as the one nearer by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from regard.text.markup.document import Node

Floats = npt.NDArray[np.float64]
Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Placed:
    """A node and the words [start, end) of the translation that it stands over; equal for a gap before `start`."""

    node: Node
    start: int
    end: int
    children: list[Placed]


def project(nodes: Sequence[Node], sources: Sequence[Range], weights: Floats) -> list[Placed]:
    """Return where `nodes` stand.

    `sources` are the S source words' spans in the document's text; `weights` [T, S] are those of the
    links between the translation's T words and them, 0 where there is none.
    """
    return _Projection(sources, weights).place(nodes, (0, len(sources)), (0, len(weights)))


class _Projection:
    def __init__(self, sources: Sequence[Range], weights: Floats) -> None:
        self._sources, self._weights = sources, weights
        self._totals = weights.sum(axis=1)

    def place(self, nodes: Sequence[Node], within: Range, space: Range) -> list[Placed]:
        """Return where siblings stand, in order; their parent is of the words `within`, and stands over `space`."""
        words = [self._words(node) for node in nodes]
        ranges: dict[int, Range] = {}
        free = [space]
        masses = [self._mass(span) for span in words]
        for index in sorted(range(len(nodes)), key=lambda index: -masses[index][slice(*space)].sum()):
            found = self._range(masses[index], free)
            if found is None:
                continue
            span, stretch = found
            ranges[index] = self._widened(span, stretch, words[index], within, space)
            _take(free, stretch, ranges[index])
        for index in range(len(nodes)):
            if index not in ranges:
                ranges[index] = self._at_gap(nodes[index], words[index], free, space)
        placed = [
            Placed(node, *ranges[index], self.place(node.children, words[index], ranges[index]))
            for index, node in enumerate(nodes)
        ]
        return sorted(placed, key=lambda one: (one.start, one.end > one.start))

    def _words(self, node: Node) -> Range:
        """Return the source words that the node holds, or where it stands between them."""
        start = sum(end <= node.start for _, end in self._sources)
        return start, max(start, sum(begin < node.end for begin, _ in self._sources))

    def _mass(self, words: Range) -> Floats:
        """Return the weight [T] of the links with `words`, of the words of which it's most of their weight."""
        mass: Floats = self._weights[:, slice(*words)].sum(axis=1)
        return np.where(mass > self._totals / 2, mass, 0.0)

    def _range(self, mass: Floats, free: Sequence[Range]) -> tuple[Range, Range] | None:
        stretch = max(free, key=lambda stretch: mass[slice(*stretch)].sum())
        own = np.flatnonzero(mass[slice(*stretch)])
        if not len(own):
            return None
        return (stretch[0] + int(own[0]), stretch[0] + int(own[-1]) + 1), stretch

    def _widened(self, span: Range, stretch: Range, words: Range, within: Range, space: Range) -> Range:
        start, end = span
        if words[0] == within[0] and stretch[0] == space[0] and not self._totals[space[0] : start].any():
            start = space[0]
        if words[1] == within[1] and stretch[1] == space[1] and not self._totals[end : space[1]].any():
            end = space[1]
        return start, end

    def _at_gap(self, node: Node, words: Range, free: list[Range], space: Range) -> Range:
        gap = self._gap(node, words, free)
        if words[0] == words[1]:
            return gap, gap
        stretch = next(stretch for stretch in free if stretch[0] <= gap <= stretch[1])
        start = end = gap
        while start > stretch[0] and not self._totals[start - 1]:
            start -= 1
        while end < stretch[1] and not self._totals[end]:
            end += 1
        if end > start:
            _take(free, stretch, (start, end))
        return start, end

    def _gap(self, node: Node, words: Range, free: Sequence[Range]) -> int:
        """Return the gap that the fewest links cross; of several, the one nearest to the word that it leans on."""
        count = len(self._sources)
        near = np.concatenate([0.5 ** np.arange(words[0])[::-1], 0.5 ** np.arange(count - words[0])])
        weights = self._weights * near
        before, behind = weights[:, : words[0]].sum(axis=1), weights[:, words[0] :].sum(axis=1)
        crossings = (
            np.concatenate([[0.0], np.cumsum(behind)]) + before.sum() - np.concatenate([[0.0], np.cumsum(before)])
        )
        gaps = sorted({gap for start, end in free for gap in range(start, end + 1)})
        leans_forward = words[0] > 0 and (words[0] == count or (node.spaced == (True, False)))
        return min(gaps, key=lambda gap: (round(float(crossings[gap]), 9), -gap if leans_forward else gap))


def _take(free: list[Range], stretch: Range, taken: Range) -> None:
    """Replace a free stretch by what is left of it on both sides; a side may be a gap without a word."""
    place = free.index(stretch)
    free[place : place + 1] = [(stretch[0], taken[0]), (taken[1], stretch[1])]

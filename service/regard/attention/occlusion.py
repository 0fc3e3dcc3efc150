"""What a part is worth by what happens without it: the regions that are taken away, and who is given the credit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
import numpy.typing as npt

Region = frozenset[int]
Floats = npt.NDArray[np.float64]


def windows(count: int, size: int, stride: int) -> list[Region]:
    """Return the windows of `size` of `count` parts, `stride` apart; the last ends where the parts do."""
    return [frozenset(span) for span in _spans(count, size, stride)]


def squares(rows: int, columns: int, side: int, stride: int) -> list[Region]:
    """Return the squares of `side` patches of a grid in row-major order, `stride` apart in both directions."""
    return [
        frozenset(row * columns + column for row, column in product(down, across))
        for down, across in product(_spans(rows, side, stride), list(_spans(columns, side, stride)))
    ]


def credit(regions: Sequence[Region], falls: Floats, count: int) -> Floats:
    """Return what each part is worth, [outcomes, parts]: the mean of the falls of the score without its regions.

    `falls` [regions, outcomes] are by how much each outcome's score falls without each region. Every part must
    be in a region. (Zeiler & Fergus 2014, Visualizing and understanding convolutional networks, section 4.2,
    where a position has the score of the square around it; with windows that overlap, it has several.)
    """
    covers = np.zeros((len(regions), count))
    for index, region in enumerate(regions):
        covers[index, list(region)] = 1
    return np.asarray(falls.T @ covers / covers.sum(axis=0), np.float64)


def _spans(count: int, size: int, stride: int) -> Iterator[range]:
    last = max(count - size, 0)
    for start in [*range(0, last, stride), last]:
        yield range(start, min(start + size, count))

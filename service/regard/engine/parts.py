"""A batch cut into parts that are read one after the other, so that less is padded."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

LEAST_OVERHEAD = 8.0
"""A part costs as much as so many padded tokens beside its own, whatever was measured: 5 to 10 for Marian's encoder."""


def part_ends(lengths: Sequence[int], overhead: float) -> list[int]:
    """Return where each part of a batch ends, whose `lengths` descend: the cuts that cost least.

    A part costs its longest length times its size, and `overhead`, in padded tokens. As inputs of one length
    stay together, the best cuts before each length are found from those before the lengths ahead of it.
    """
    if not lengths:
        return []
    overhead = max(overhead, LEAST_OVERHEAD)
    if len(lengths) * lengths[0] - sum(lengths) <= overhead:
        return [len(lengths)]
    begins = [0]
    for _, same in groupby(lengths):
        begins.append(begins[-1] + len(list(same)))
    least, cut_before = [0.0], [0]
    for place in range(1, len(begins)):
        costs = [least[at] + overhead + lengths[begins[at]] * (begins[place] - begins[at]) for at in range(place)]
        least.append(min(costs))
        cut_before.append(costs.index(least[-1]))
    ends: list[int] = []
    place = len(begins) - 1
    while place:
        ends.append(begins[place])
        place = cut_before[place]
    return ends[::-1]

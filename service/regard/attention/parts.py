"""The parts of an input that can be taken away one by one: its words, tokens or patches, but no special position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import numpy as np
import numpy.typing as npt

from regard.attention.axes import Passage, Patches
from regard.attention.selection import Granularity
from regard.errors import InvalidInputError
from regard.text.segment import Segment
from regard.vision.grid import PatchGrid

FloatArray = npt.NDArray[np.float32]


class Manner(StrEnum):
    """How parts are taken away: the text closes up where they stood, or something without meaning covers them.

    Or they are no parts of the input but heads of the model, which give nothing.
    """

    LEFT_OUT = "left_out"
    COVERED = "covered"
    KNOCKED_OUT = "knocked_out"


@dataclass(frozen=True, slots=True)
class Erasure:
    """The parts of an input, or the heads, that are taken away, by their indices, and how."""

    parts: frozenset[int]
    manner: Manner


@dataclass(frozen=True)
class Parts:
    """The parts of one input, in order; `positions` are those of each part among the source positions.

    `leads` says whether the first source position is a special one, such as [CLS]; `grid` is that of an image.
    """

    segments: tuple[Segment, ...]
    positions: tuple[tuple[int, ...], ...]
    leads: bool
    grid: PatchGrid | None = None

    @property
    def count(self) -> int:
        """The number of parts."""
        return len(self.segments)

    @cached_property
    def _membership(self) -> FloatArray:
        """Which part each position is of, [positions up to the last, parts]."""
        member = np.zeros((1 + max(max(of) for of in self.positions), self.count), np.float32)
        for part, of in enumerate(self.positions):
            member[list(of), part] = 1
        return member

    def sums(self, weights: FloatArray) -> FloatArray:
        """Return the sums of `weights` [..., S] over the positions of each part, [..., parts]."""
        member = self._membership
        return np.asarray(weights[..., : len(member)] @ member, np.float32)


def parts_of(origin: Passage | Patches, granularity: Granularity, field: str) -> Parts:
    """Return the parts of an input: the words or tokens of its text, or the patches of its image.

    Raises `InvalidInputError`, naming `field`, if it has none.
    """
    grid: PatchGrid | None = None
    if isinstance(origin, Patches) or granularity is Granularity.TOKEN:
        grid = origin.grid if isinstance(origin, Patches) else None
        every: Sequence[tuple[Segment, tuple[int, ...]]] = [
            (segment, (position,)) for position, segment in enumerate(origin.segments)
        ]
    else:
        every = [(word.segment, word.tokens) for word in origin.words()]
    own = [(segment, positions) for segment, positions in every if not segment.special]
    if not own:
        raise InvalidInputError(
            f"{field} has no word that could be taken away: its tokens are all special", field=field
        )
    return Parts(
        segments=tuple(segment for segment, _ in own),
        positions=tuple(positions for _, positions in own),
        leads=bool(origin.segments[0].special),
        grid=grid,
    )

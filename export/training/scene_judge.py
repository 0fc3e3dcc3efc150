"""Whether a caption is right, judged against what was drawn, and whether its attention points at what it names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scenes import COLOURS, HELD_OUT, MIRRORED, PLACES, SHAPES, SIDE, SIZES, Scene, draw, place, relation

HELD_OUT_SEED = 10_000_000
HELD_OUT_COMBINATIONS_SEED = 20_000_000
POINTING_SEED = 30_000_000
CHOOSING_SEED = 40_000_000

FloatArray = npt.NDArray[np.float32]


def _any(words: object) -> str:
    return "|".join(map(re.escape, sorted(words, key=len, reverse=True)))  # type: ignore[call-overload]


_OBJECT = re.compile(rf"a ({_any(SIZES)}) ({_any(COLOURS)}) ({_any(SHAPES)})")
_JOINT = re.compile(rf"(?:, which is)? ({_any(MIRRORED)}) ")
_PLACE = re.compile(rf" ({_any(one for row in PLACES for one in row)})")


@dataclass(frozen=True)
class Mention:
    """An object as a caption names it; `span` is where its shape's word stands, in characters."""

    size: str
    colour: str
    shape: str
    span: tuple[int, int]

    @property
    def kind(self) -> tuple[str, str]:
        """Its colour and shape."""
        return self.colour, self.shape


@dataclass(frozen=True)
class Verdict:
    """What of a caption is right.

    `objects`: exactly the scene's colours and shapes. `sizes`: those, and their sizes. `relations`:
    `objects`, and every relation or place that is stated holds, as many as the scene has.
    """

    objects: bool
    sizes: bool
    relations: bool


def parse(caption: str) -> tuple[list[Mention], list[str]] | None:
    """Return the objects of a caption and its relations, or its one place; None if it isn't one."""
    mentions: list[Mention] = []
    joints: list[str] = []
    at = 0
    while found := _OBJECT.match(caption, at):
        size, colour, shape = found.groups()
        mentions.append(Mention(size, colour, shape, found.span(3)))
        at = found.end()
        if at == len(caption):
            return mentions, joints
        joint = _JOINT.match(caption, at) or _PLACE.match(caption, at)
        if joint is None:
            return None
        joints.append(joint[1])
        at = joint.end()
    return (mentions, joints) if mentions and at == len(caption) else None


def judge(caption: str, scene: Scene) -> Verdict:
    """Compare a caption with what was drawn."""
    parsed = parse(caption)
    if parsed is None:
        return Verdict(False, False, False)
    mentions, joints = parsed
    objects = Counter(one.kind for one in mentions) == Counter(one.kind for one in scene.objects)
    if not objects:
        return Verdict(False, False, False)
    named = {one.kind: one for one in scene.objects}
    sizes = all(named[one.kind].size == one.size for one in mentions)
    drawn = [named[one.kind] for one in mentions]
    true = [place(drawn[0])] if len(drawn) == 1 else list(map(relation, drawn, drawn[1:]))
    return Verdict(True, sizes, joints == true)


def mentions(caption: str) -> list[Mention]:
    """Return the objects that a caption names; none if it can't be parsed."""
    parsed = parse(caption)
    return parsed[0] if parsed else []


def some(seed: int, count: int) -> list[Scene]:
    """Return the scenes of `count` seeds from `seed` on."""
    return [draw(seed + index) for index in range(count)]


def held_out(count: int) -> list[Scene]:
    """Return scenes that the training did not see, of combinations that it did."""
    return some(HELD_OUT_SEED, count)


def held_out_combinations(count: int) -> list[Scene]:
    """Return scenes with at least one object of a colour and shape that were never seen together."""
    return [draw(HELD_OUT_COMBINATIONS_SEED + index, held_out=True) for index in range(count)]


def names_unseen(caption: str, scene: Scene) -> bool:
    """Tell whether a caption names every unseen combination of the scene, whatever else it says."""
    parsed = parse(caption)
    unseen = {one.kind for one in scene.objects} & HELD_OUT
    return parsed is not None and unseen <= {one.kind for one in parsed[0]}


def hits(weights: FloatArray, box: Sequence[float]) -> npt.NDArray[np.bool_]:
    """Tell for each head of `weights` [heads, rows, columns] whether the heaviest patch's middle lies in `box`.

    The pointing game of Zhang et al. 2016 (arXiv:1608.00507, section 4.1), without its tolerance
    of 15 pixels around the box.
    """
    heads, rows, columns = weights.shape
    peak = weights.reshape(heads, -1).argmax(axis=1)
    y, x = (peak // columns + 0.5) * SIDE / rows, (peak % columns + 0.5) * SIDE / columns
    left, top, right, bottom = box
    inside: npt.NDArray[np.bool_] = (left <= x) & (x <= right) & (top <= y) & (y <= bottom)
    return inside


def chance(rows: int, columns: int, box: Sequence[float]) -> float:
    """Return the share of patches whose middle lies in `box`: what a uniform map hits."""
    left, top, right, bottom = box
    y, x = np.mgrid[0:rows, 0:columns]
    x, y = (x + 0.5) * SIDE / columns, (y + 0.5) * SIDE / rows
    return float(np.mean((left <= x) & (x <= right) & (top <= y) & (y <= bottom)))

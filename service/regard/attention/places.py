"""Places of a source, as a request names them: which of the source's positions they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from regard.attention.axes import Passage, Patches
from regard.errors import InvalidInputError

BoolArray = npt.NDArray[np.bool_]
Source = Passage | Patches


class Span(NamedTuple):
    """Part of a text, in Unicode code points; of the first of two texts, or of the second."""

    start: int
    end: int
    part: int = 0


class Rectangle(NamedTuple):
    """Patches of an image."""

    row: int
    column: int
    rows: int
    columns: int


@dataclass(frozen=True, slots=True)
class Places:
    """Positions of a source: the tokens that spans of its text touch, patches, and any by their index."""

    field: str
    spans: tuple[Span, ...] = ()
    patches: tuple[Rectangle, ...] = ()
    positions: tuple[int, ...] = ()


def marked(places: Places, source: Source, field: str) -> BoolArray:
    """Return which positions [S] of a source `places` name.

    Raises `InvalidInputError`, naming the input's `field`, for those that the source lacks.
    """
    segments = source.segments
    found = np.zeros(len(segments), np.bool_)
    for index, position in enumerate(places.positions):
        if position >= len(segments):
            raise _lacking(field, f"{places.field}.positions[{index}]", f"is {position}", f"{len(segments)} positions")
        found[position] = True
    for index, span in enumerate(places.spans):
        found[_touched(span, source, field, f"{places.field}.spans[{index}]")] = True
    for index, rectangle in enumerate(places.patches):
        found[_covered(rectangle, source, field, f"{places.field}.patches[{index}]")] = True
    return found


def _touched(span: Span, source: Source, field: str, name: str) -> list[int]:
    if not isinstance(source, Passage):
        raise _lacking(field, name, "is part of a text", "none: name patches or positions")
    texts: Mapping[int, str | None] = {0: source.text, 1: source.pair}
    text = texts.get(span.part)
    if text is None:
        raise _lacking(field, name, f"is in part {span.part}", "one text" if source.pair is None else "parts 0 and 1")
    if span.end > len(text):
        raise _lacking(field, name, f"ends at {span.end}", f"{len(text)} code points")
    touched = [
        index
        for index, segment in enumerate(source.segments)
        if segment.part == span.part and max(segment.start, span.start) < min(segment.end, span.end)
    ]
    if not touched:
        raise _lacking(field, name, f"is {span.start} to {span.end}", "no token there")
    return touched


def _covered(rectangle: Rectangle, source: Source, field: str, name: str) -> list[int]:
    if not isinstance(source, Patches):
        raise _lacking(field, name, "is part of an image", "no patches: name spans or positions")
    bottom, right = rectangle.row + rectangle.rows, rectangle.column + rectangle.columns
    grid = source.grid
    if bottom > grid.rows or right > grid.columns:
        reach = f"reaches row {bottom - 1} and column {right - 1}"
        raise _lacking(field, name, reach, f"{grid.rows} rows and {grid.columns} columns of patches")
    return [
        len(source.leading) + row * grid.columns + column
        for row in range(rectangle.row, bottom)
        for column in range(rectangle.column, right)
    ]


def _lacking(field: str, name: str, asked: str, there: str) -> InvalidInputError:
    return InvalidInputError(f"{field}: {name} {asked}; it has {there}", field=field)

"""The sequences that the axes of a map run over: their tokens, the words that these make up, patches or frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from regard.attention.selection import Granularity, Selection
from regard.audio.frames import Frames
from regard.manifest import TapSpec
from regard.text.segment import Segment
from regard.text.words import Word, words_of
from regard.vision.grid import PatchGrid


class AxisName(StrEnum):
    """The sequence that an axis of a map runs over."""

    SOURCE = "source"
    TARGET = "target"
    DECODER_INPUT = "decoder_input"
    PATCHES = "patches"


@dataclass(frozen=True, slots=True)
class Passage:
    """A text, and a segment for each of its tokens; of a `pair` of texts, for those of both."""

    text: str
    segments: Sequence[Segment]
    pair: str | None = None

    def words(self) -> list[Word]:
        """Return the words, as `words_of` does; those of a pair are of either text."""
        if self.pair is None:
            return words_of(self.text, self.segments)
        words = []
        for part, text in enumerate((self.text, self.pair)):
            own = [index for index, segment in enumerate(self.segments) if segment.part == part]
            for word in words_of(text, [self.segments[index] for index in own]):
                tokens = tuple(own[token] for token in word.tokens)
                words.append(Word(replace(word.segment, part=part), tokens))
        return words


@dataclass(frozen=True, slots=True)
class Patches:
    """An image: the names of the special positions that lead it, and the grid of its patches."""

    leading: Sequence[str]
    grid: PatchGrid

    @property
    def segments(self) -> tuple[Segment, ...]:
        """A segment for each position: the special ones, then the patches, called "row,column"."""
        special = [Segment(name, 0, 0, True, None) for name in self.leading]
        rows, columns = range(self.grid.rows), range(self.grid.columns)
        return (*special, *(Segment(f"{row},{column}", 0, 0, False, None) for row in rows for column in columns))


Origin = Passage | Patches | Frames
"""What a source axis runs over."""


@dataclass(frozen=True, slots=True)
class Axis:
    """The elements of one axis, in order; the `grid` is that of an axis over an image, `frames` over sound.

    `groups` holds the indices of each element's tokens; it is None where the elements are the
    tokens themselves. Those of `PATCHES` are indices of the axis that the image is on.
    """

    name: AxisName
    segments: tuple[Segment, ...]
    groups: tuple[tuple[int, ...], ...] | None = None
    grid: PatchGrid | None = None
    frames: Frames | None = None

    @property
    def tokens(self) -> int:
        """The number of tokens below the elements: the length of this axis in a tap's array."""
        return len(self.segments) if self.groups is None else sum(map(len, self.groups))


def axis_names(tap: TapSpec) -> tuple[AxisName, AxisName]:
    """Return the axes that the queries and the keys of `tap` run over, as the model has them."""
    if tap.kind == "cross":
        return AxisName.TARGET, AxisName.SOURCE
    if tap.stack == "decoder" and not tap.of_prompt:
        return AxisName.TARGET, AxisName.DECODER_INPUT
    return AxisName.SOURCE, AxisName.SOURCE


def label(
    selection: Selection, source: Origin, target: Passage | None = None, start: Segment | None = None
) -> dict[AxisName, Axis]:
    """Return the axes that the maps of `selection`, and the taps that they are made of, run over, by name.

    `target` is the output and `start` the decoder's start token, which a completion doesn't have; a
    classification has neither.
    """
    needed = {name for tap in selection.taps for name in axis_names(tap)}
    granularity = selection.granularity
    axes = {AxisName.SOURCE: _source(source, granularity)} if AxisName.SOURCE in needed else {}
    if target is not None and AxisName.TARGET in needed:
        axes[AxisName.TARGET] = _axis(AxisName.TARGET, target, granularity)
    if AxisName.DECODER_INPUT in needed and (target is not None or selection.reads_source):
        before = source if selection.reads_source else None
        axes[AxisName.DECODER_INPUT] = _decoder_input(before, start, target or Passage("", ()), granularity)
    if granularity is Granularity.PATCH and isinstance(source, Patches):
        axes[AxisName.PATCHES] = _patches(source)
    return axes


def axes_of(tap: TapSpec, axes: Mapping[AxisName, Axis]) -> tuple[AxisName, AxisName]:
    """Return which of the `axes` that `label` gave the queries and the keys of a map of `tap` run over."""
    queries, keys = axis_names(tap)
    over_image = keys in axes and axes[keys].grid is not None
    return queries, AxisName.PATCHES if over_image and AxisName.PATCHES in axes else keys


def _patches(source: Patches) -> Axis:
    first = len(source.leading)
    segments = source.segments[first:]
    places = tuple((first + patch,) for patch in range(len(segments)))
    return Axis(AxisName.PATCHES, segments, places, source.grid)


def positions_of(source: Origin) -> Sequence[Segment]:
    """Return a segment for each position of a source."""
    return _segments_of(source) if isinstance(source, Frames) else source.segments


def _source(source: Origin, granularity: Granularity) -> Axis:
    if isinstance(source, Patches):
        return Axis(AxisName.SOURCE, source.segments, grid=source.grid)
    if isinstance(source, Frames):
        return Axis(AxisName.SOURCE, _segments_of(source), frames=source)
    return _axis(AxisName.SOURCE, source, granularity)


def _segments_of(frames: Frames) -> tuple[Segment, ...]:
    """Return a segment for each frame, called by its second; those behind the end of the sound are special."""
    times = [frames.time_of(index) for index in range(frames.count)]
    return tuple(Segment(f"{time:.2f}", 0, 0, time >= frames.end_s, None) for time in times)


def _axis(name: AxisName, passage: Passage, granularity: Granularity) -> Axis:
    if granularity is Granularity.TOKEN:
        return Axis(name, tuple(passage.segments))
    return _of_words(name, passage.words())


def _decoder_input(before: Origin | None, start: Segment | None, target: Passage, granularity: Granularity) -> Axis:
    """Return the axis of what decoding was fed: the source if it comes `before`, the start, the output but its end."""
    alone, text, fed = [start] if start else [], target.text, [*target.segments[:-1]]
    grid = None
    if isinstance(before, Passage):
        fed = [*before.segments, *(segment.moved(len(before.text)) for segment in fed)]
        text = before.text + text
    elif isinstance(before, Patches):
        alone, grid = [*before.segments, *alone], before.grid
    if granularity is Granularity.TOKEN:
        return Axis(AxisName.DECODER_INPUT, (*alone, *fed), grid=grid)
    words = [Word(segment, (place,)) for place, segment in enumerate(alone)]
    words += [Word(word.segment, tuple(len(alone) + place for place in word.tokens)) for word in words_of(text, fed)]
    return _of_words(AxisName.DECODER_INPUT, words, grid)


def _of_words(name: AxisName, words: Sequence[Word], grid: PatchGrid | None = None) -> Axis:
    return Axis(name, tuple(word.segment for word in words), tuple(word.tokens for word in words), grid)

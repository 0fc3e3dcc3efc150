"""Attention in a terminal: an alignment grid, highlighted words, and bars.

Everything here returns a rich renderable and looks at nothing but its arguments. With colours, a
weight is the lightness of a background; without (NO_COLOR, a pipe, a terminal of 16 colours) it is
one of the shades ░▒▓█.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from rich.cells import cell_len, set_cell_size
from rich.color import Color
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.style import Style
from rich.text import Text

Weights = npt.NDArray[np.float32] | npt.NDArray[np.float64]

_RAMP = (
    (0.00, (22, 27, 38)),
    (0.25, (29, 66, 94)),
    (0.50, (30, 120, 138)),
    (0.75, (84, 184, 150)),
    (1.00, (238, 242, 176)),
)
_RAMP_AGAINST = (
    (0.00, (22, 27, 38)),
    (0.25, (74, 36, 44)),
    (0.50, (134, 52, 50)),
    (0.75, (204, 88, 62)),
    (1.00, (252, 190, 142)),
)
_SHADES = " ░▒▓█"
_ASCII_SHADES = " .:*#"
_ADVANCED = frozenset({"256", "truecolor", "windows"})
_NARROWEST_CELL = 3
_WIDEST_LABEL = 20
_DIM = Style(dim=True)
_NAME = Style(bold=True)
_SPECIAL = Style(dim=True, italic=True)


def percent(weight: float) -> str:
    """Return a weight as a percentage in two or three characters."""
    return f"{100 * weight:.0f}"


def signed_percent(weight: float) -> str:
    """Return a weight, which may be below 0, as a percentage with its sign; nothing rounds to 0 with a sign."""
    figure = f"{100 * weight:+.0f}"
    return "0" if figure in ("+0", "-0") else figure


@dataclass(frozen=True)
class Label:
    """A word or token beside the weights; a special one, which stands nowhere in the text, is drawn dim."""

    text: str
    special: bool = False

    @property
    def style(self) -> Style:
        """Dim for a special token."""
        return _SPECIAL if self.special else Style.null()

    @property
    def width(self) -> int:
        """How many cells of a terminal it takes."""
        return cell_len(self.text)


@dataclass(frozen=True)
class AlignmentGrid:
    """Weights [rows, columns] as a grid: one row for each target word, one column for each source word.

    The largest weight of a row bears its figure, a percentage, or `every` one does. Cells are shaded between 0 and
    `most`, by default the grid's weight furthest from it, which may be below. Column labels stand on one line if
    they fit and on stairs if they don't; columns that don't fit even so follow in a second grid.
    """

    rows: Sequence[Label]
    columns: Sequence[Label]
    weights: Weights
    figure: Callable[[float], str] = percent
    every: bool = False
    most: float | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        most = float(np.abs(self.weights).max(initial=0.0)) if self.most is None else self.most
        shade = Shader.of(console, options, most)
        widest_label = min(_WIDEST_LABEL, options.max_width // 3)
        margin = min(max((row.width for row in self.rows), default=0), widest_label) + 1
        room = options.max_width - margin
        for padding in (2, 1):
            widths = [max(column.width + padding, self._narrowest(4)) for column in self.columns]
            if sum(widths) <= room:
                yield self._header(margin, widths)
                yield from self._body(shade, margin, range(len(widths)), widths)
                return
        width = 4 if self._fitting(0, 4, room) == len(self.columns) else _NARROWEST_CELL
        width = self._narrowest(width)
        start = 0
        while start < len(self.columns):
            columns = range(start, start + self._fitting(start, width, room))
            yield from self._stairs(margin, columns, width, room)
            yield from self._body(shade, margin, columns, [width] * len(columns))
            start = columns.stop

    def _narrowest(self, width: int) -> int:
        """Return how wide a cell must be: as wide as said, or as the widest figure if each has one."""
        return (
            max([width, *(len(self.figure(weight)) + 1 for weight in map(float, self.weights.flat))])
            if self.every
            else width
        )

    def _fitting(self, start: int, width: int, room: int) -> int:
        """Return how many columns from `start` on fit into `room` as stairs, at least one."""
        count = 0
        for column in self.columns[start:]:
            if count and count * width + max(min(column.width, _WIDEST_LABEL) + 1, width) > room:
                break
            count += 1
        return count

    def _header(self, margin: int, widths: Sequence[int]) -> Text:
        line = Text(" " * margin, no_wrap=True)
        for column, width in zip(self.columns, widths, strict=True):
            line.append(centered(column.text, width), column.style)
        return line

    def _stairs(self, margin: int, columns: range, width: int, room: int) -> Iterator[Text]:
        for step, column in enumerate(columns):
            label = self.columns[column]
            line = Text(" " * margin, no_wrap=True)
            line.append((" │" + " " * (width - 2)) * step, _DIM)
            line.append(" " + _cut(label.text, room - step * width - 1), label.style)
            yield line

    def _body(self, shade: Shader, margin: int, columns: range, widths: Sequence[int]) -> Iterator[Text]:
        for row, weights in zip(self.rows, self.weights, strict=True):
            label = _cut(row.text, margin - 1)
            line = Text(" " * (margin - 1 - cell_len(label)), no_wrap=True)
            line.append(label, row.style)
            line.append(" ")
            best = int(weights.argmax())
            for column, width in zip(columns, widths, strict=True):
                weight = float(weights[column])
                figure = self.figure(weight) if self.every or column == best else ""
                line.append_text(shade.cell(weight, width, figure))
            yield line


@dataclass(frozen=True)
class HighlightedText:
    """Words in reading order, each shaded by its weight, with the percentage below it; weights may be below 0."""

    words: Sequence[Label]
    weights: Sequence[float]
    figure: Callable[[float], str] = percent

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        shade = Shader.of(console, options, max(map(abs, self.weights), default=0.0))
        above, below = Text(no_wrap=True), Text(no_wrap=True)
        for word, weight in zip(self.words, self.weights, strict=True):
            figure = self.figure(weight)
            width = min(max(word.width, cell_len(figure)) + 2, options.max_width)
            if above.cell_len + width > options.max_width:
                yield from (above, below)
                above, below = Text(no_wrap=True), Text(no_wrap=True)
            above.append_text(shade.word(word, weight, width))
            below.append_text(shade.below(figure, weight, width))
        yield from (above, below)


@dataclass(frozen=True)
class Bars:
    """Probabilities as bars, with their names and percentages; the first is drawn bright."""

    names: Sequence[str]
    values: Sequence[float]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        name_width = min(max((cell_len(name) for name in self.names), default=0), 32)
        length = max(min(options.max_width - name_width - 10, 40), 8)
        for place, (name, value) in enumerate(zip(self.names, self.values, strict=True)):
            line = Text(no_wrap=True)
            line.append(set_cell_size(_cut(name, name_width), name_width), _NAME if place == 0 else Style.null())
            line.append(f" {100 * value:5.1f} % ", Style.null() if place == 0 else _DIM)
            line.append(_bar(value, length, ascii_only=options.ascii_only), "cyan" if place == 0 else "dim cyan")
            yield line


@dataclass(frozen=True)
class Shader:
    """How a weight looks on this console; `most` is the weight of the lightest shade."""

    most: float
    colored: bool
    shades: str
    nothing: str

    @classmethod
    def of(cls, console: Console, options: ConsoleOptions, most: float) -> Shader:
        """Return the one for a console."""
        colored = console.color_system in _ADVANCED and not console.no_color
        shades, nothing = (_ASCII_SHADES, "-") if options.ascii_only else (_SHADES, "·")
        return cls(most=most or 1.0, colored=colored, shades=shades, nothing=nothing)

    def cell(self, weight: float, width: int, figure: str) -> Text:
        """Return a cell of a grid, with a figure in it or none."""
        if self.colored:
            return Text(figure.center(width), style=self._style(weight) + Style(bold=bool(figure)))
        shade = self.shade(weight)
        fill = shade * (width - 1) if shade != self.shades[0] else centered(self.nothing, width - 1)
        return Text((figure.center(width - 1, shade) if figure else fill) + " ")

    def word(self, word: Label, weight: float, width: int) -> Text:
        """Return a word on the ground of its weight."""
        text = Text(centered(word.text, width), style=word.style)
        if self.colored:
            text.stylize(self._style(weight))
        return text

    def below(self, figure: str, weight: float, width: int) -> Text:
        """Return what stands below a word: its figure, or without colours its shade."""
        if self.colored:
            return Text(figure.center(width), style=_DIM)
        shade = self.shade(weight)
        return Text(figure.center(width - 1, shade) + " ")

    def shade(self, weight: float) -> str:
        """Return the character for a weight on a console without colours."""
        return self.shades[min(int(abs(weight) / self.most * len(self.shades)), len(self.shades) - 1)]

    def _style(self, weight: float) -> Style:
        red, green, blue = color(weight / self.most)
        light = 0.299 * red + 0.587 * green + 0.114 * blue > 130
        return Style(
            bgcolor=Color.from_rgb(red, green, blue),
            color=Color.from_rgb(16, 20, 28) if light else Color.from_rgb(226, 232, 240),
        )


def captioned(title: str, drawing: RenderableType, caption: str) -> Group:
    """Put a title above a drawing, and below it what was drawn."""
    return Group(Text(title, style=_NAME), Text(), drawing, Text(caption, style=_DIM))


def color(share: float) -> tuple[int, int, int]:
    """Return the colour of `share`, between 0 and 1, along the ramp; below 0, down to -1, along the one against."""
    ramp = _RAMP if share >= 0 else _RAMP_AGAINST
    stops = [stop for stop, _ in ramp]
    red, green, blue = (np.interp(abs(share), stops, [color[i] for _, color in ramp]) for i in range(3))
    return round(float(red)), round(float(green)), round(float(blue))


def _bar(value: float, length: int, *, ascii_only: bool) -> str:
    if ascii_only:
        return "#" * round(value * length)
    eighths = round(value * length * 8)
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def centered(text: str, width: int) -> str:
    """Return `text` in the middle of `width` cells, cut if it is wider."""
    text = _cut(text, width)
    space = width - cell_len(text)
    return " " * (space // 2) + text + " " * (space - space // 2)


def _cut(text: str, width: int) -> str:
    return text if cell_len(text) <= width else set_cell_size(text, max(width - 1, 0)) + "…"[:width]

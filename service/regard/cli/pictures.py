"""Attention over an image in a terminal: a small picture for each word, lit where the word looked.

A cell shows two pixels, one above the other (▀). Without colours a picture is its patches, in the
shades ░▒▓█.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from rich.color import Color
from rich.console import Console, ConsoleOptions, RenderResult
from rich.style import Style
from rich.text import Text

from regard.cli.drawing import Label, Shader, Weights, centered
from regard.vision.picture import ImageLimits, read_picture

_WIDTH = 15
_GAP = 2
_SIDE_BY_SIDE = 8
_MARGIN, _HEAD = 16, 44
"""Around the pictures of a sheet, and above them for their names, in pixels."""

Pixels = npt.NDArray[np.float32]


@dataclass(frozen=True)
class HeatStrip:
    """A picture for each word of a caption: dim and grey, and in its own colours where the word looked.

    `picture` is an image file; `maps` are weights [rows, columns], one for each word, over the `part`
    of it from a left and top edge to a right and bottom one, in pixels of the upright picture.
    Brightness is relative to the largest weight of the word's own map, which is what its percentage says.
    """

    picture: bytes
    part: tuple[float, float, float, float]
    words: Sequence[Label]
    maps: Sequence[Weights]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        shader = Shader.of(console, options, 1.0)
        width = min(_WIDTH, options.max_width)
        beside = min(_SIDE_BY_SIDE, max(1, (options.max_width + _GAP) // (width + _GAP)))
        thumbnail = _thumbnail(self.picture, self.part, width)
        drawn = [
            list(_lit(thumbnail, weights) if shader.colored else _shaded(weights, width, shader))
            for weights in self.maps
        ]
        for start in range(0, len(self.words), beside):
            part = range(start, min(start + beside, len(self.words)))
            for lines in zip(*(drawn[place] for place in part), strict=True):
                yield _joined(lines)
            yield _joined([Text(centered(self.words[place].text, width), self.words[place].style) for place in part])
            yield Text()


def _joined(parts: Sequence[Text]) -> Text:
    line = Text(no_wrap=True)
    for place, part in enumerate(parts):
        line.append(" " * _GAP if place else "")
        line.append_text(part)
    return line


def _thumbnail(picture: bytes, part: tuple[float, float, float, float], width: int) -> Pixels:
    """Return a part of what the model saw as [lines * 2, width, 3], with as many lines as its shape asks for."""
    shown = read_picture(picture, ImageLimits(len(picture), sys.maxsize), "image").crop(part)
    lines = min(max(1, round(width * shown.height / shown.width / 2)), width)
    return np.asarray(shown.resize((width, 2 * lines), Image.Resampling.BOX), np.float32)


def _stretched(weights: Weights, height: int, width: int) -> Pixels:
    share = np.asarray(weights, np.float32) / max(float(weights.max(initial=0.0)), 1e-12)
    return np.asarray(Image.fromarray(share).resize((width, height), Image.Resampling.BILINEAR), np.float32)


def _lit(thumbnail: Pixels, weights: Weights) -> Iterator[Text]:
    """Yield lines of half blocks: the picture in dim grey, and in its own colours where the weights lie."""
    height, width, _ = thumbnail.shape
    share = (_stretched(weights, height, width).clip(0, 1) ** 0.7)[..., None]
    grey = 0.35 * (thumbnail @ np.array([0.299, 0.587, 0.114], np.float32))[..., None]
    lit = ((1 - share) * grey + share * thumbnail).astype(int)
    for upper, lower in zip(lit[::2], lit[1::2], strict=True):
        line = Text(no_wrap=True)
        for above, below in zip(upper.tolist(), lower.tolist(), strict=True):
            line.append("▀", Style(color=Color.from_rgb(*above), bgcolor=Color.from_rgb(*below)))
        yield line


def _shaded(weights: Weights, width: int, shader: Shader) -> Iterator[Text]:
    """Yield a line for each row of patches, each patch as wide as fits."""
    rows, columns = weights.shape
    most = max(float(weights.max(initial=0.0)), 1e-12)
    wide = max(1, width // columns)
    for row in range(rows):
        cells = "".join(shader.shade(float(weights[row, column]) / most) * wide for column in range(columns))
        yield Text(cells[:width].ljust(width), no_wrap=True)


def side_by_side(drawn: Sequence[tuple[str, bytes]]) -> bytes:
    """Return a PNG file of several pictures of one size beside each other, each below its name; one alone as it is."""
    if len(drawn) == 1:
        return drawn[0][1]
    pictures = [Image.open(io.BytesIO(content)).convert("RGB") for _, content in drawn]
    width, height = pictures[0].size
    sheet = Image.new("RGB", (len(drawn) * (width + _MARGIN) + _MARGIN, height + _HEAD + _MARGIN), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(_HEAD * 0.5)
    for place, (picture, (name, _)) in enumerate(zip(pictures, drawn, strict=True)):
        left = _MARGIN + place * (width + _MARGIN)
        pen.text((left, _HEAD / 2), name, "#1b2330", font, anchor="lm")
        sheet.paste(picture, (left, _HEAD))
    written = io.BytesIO()
    sheet.save(written, "PNG", optimize=True)
    return written.getvalue()

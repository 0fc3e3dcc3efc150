"""Inputs without some of their parts, as the engine takes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from regard.attention.parts import Erasure, Manner, Parts
from regard.engine.source import Pixels, Source, Tokens
from regard.rpc.reading import ImageReading, TextReading
from regard.text.codec import TextCodec


class Eraser(Protocol):
    """Takes parts away from one input."""

    @property
    def source(self) -> Source:
        """The whole input."""

    @property
    def closes_up(self) -> bool:
        """Whether parts can be left out, not only covered."""

    @property
    def cover(self) -> str:
        """What covers a part, in a word; empty for a colour."""

    def without(self, erasure: Erasure) -> Source:
        """Return the input without some of its parts."""


@dataclass(frozen=True, slots=True)
class TextEraser:
    """Takes words or tokens away from a text; special tokens stay. Where nothing is left, what covers parts is."""

    source: Tokens
    parts: Parts
    cover_token_id: int
    cover: str
    closes_up = True

    def without(self, erasure: Erasure) -> Source:
        """Return the tokens of the text without some of its parts."""
        positions = [position for part in erasure.parts for position in self.parts.positions[part]]
        input_ids, types = self.source.input_ids, self.source.token_types
        if erasure.manner is Manner.LEFT_OUT and len(positions) < len(input_ids):
            return Tokens(np.delete(input_ids, positions), None if types is None else np.delete(types, positions))
        covered = input_ids.copy()
        covered[positions] = self.cover_token_id
        return Tokens(covered, types)


@dataclass(frozen=True, slots=True)
class ImageEraser:
    """Covers patches of an image with a colour, [C]: the mean of what the model sees of it."""

    source: Pixels
    parts: Parts
    colour: npt.NDArray[np.float32]
    closes_up = False
    cover = ""

    def without(self, erasure: Erasure) -> Source:
        """Return the pixels of the image with some of its patches covered."""
        grid, pixels = self.parts.grid, self.source.pixel_values
        assert grid is not None
        down = _edges(pixels.shape[1], grid.rows)
        across = _edges(pixels.shape[2], grid.columns)
        covered = pixels.copy()
        for part in erasure.parts:
            row, column = divmod(part, grid.columns)
            covered[:, down[row] : down[row + 1], across[column] : across[column + 1]] = self.colour[:, None, None]
        return Pixels(covered, self.source.length)


def eraser_of(reading: TextReading | ImageReading, parts: Parts, codec: TextCodec | None) -> TextEraser | ImageEraser:
    """Return what takes `parts` away from an input; `codec` is that of a text."""
    source = reading.source
    if isinstance(source, Pixels):
        return ImageEraser(source, parts, source.pixel_values.mean(axis=(1, 2)))
    assert isinstance(source, Tokens) and codec is not None
    return TextEraser(source, parts, codec.cover_token_id, codec.spelling(codec.cover_token_id))


def _edges(pixels: int, patches: int) -> npt.NDArray[np.intp]:
    """Return where each patch of a side begins, and last where the last one ends."""
    return np.linspace(0, pixels, patches + 1).round().astype(np.intp)

"""What a request reads: a text's tokens, an image's pixels or a sound's features, and how a batch of them is fed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """A text, as `input_ids` [S] int64, and which of two texts each is of, [S], for a model that reads that."""

    input_ids: npt.NDArray[np.int64]
    token_types: npt.NDArray[np.int64] | None = None

    @property
    def length(self) -> int:
        """The number of source positions, S."""
        return int(self.input_ids.shape[0])


@dataclass(frozen=True, slots=True, eq=False)
class Pixels:
    """An image, as `pixel_values` [C, height, width] float32, which the encoder makes `length` positions of."""

    pixel_values: npt.NDArray[np.float32]
    length: int


@dataclass(frozen=True, slots=True, eq=False)
class Sound:
    """A window of sound, as `input_features` [mels, frames] float32, which the encoder makes `length` positions of."""

    input_features: npt.NDArray[np.float32]
    length: int


@dataclass(frozen=True, slots=True)
class Unread:
    """A source that is still being read, of about `length` positions. Nothing runs on it."""

    length: int


Source = Tokens | Pixels | Sound | Unread


def lengths_of(sources: Sequence[Source]) -> npt.NDArray[np.int32]:
    """Return the source positions of each, [R]."""
    return np.array([source.length for source in sources], np.int32)


def pack(sources: Sequence[Source], pad_token_id: int) -> dict[str, Array]:
    """Return what a graph is fed for `sources`, which are all of one kind.

    Tokens are padded on the right to the longest: `input_ids` and `token_type_ids` [R, S]. Pixels are stacked:
    `pixel_values` [R, C, height, width]; so are features: `input_features` [R, mels, frames]. All come
    with `source_length` [R].
    """
    lengths = lengths_of(sources)
    if isinstance(sources[0], Pixels):
        pixels = [source.pixel_values for source in sources if isinstance(source, Pixels)]
        return {"pixel_values": np.stack(pixels), "source_length": lengths}
    if isinstance(sources[0], Sound):
        features = [source.input_features for source in sources if isinstance(source, Sound)]
        return {"input_features": np.stack(features), "source_length": lengths}
    input_ids = np.full((len(sources), lengths.max()), pad_token_id, np.int64)
    token_types = np.zeros_like(input_ids)
    for row, source in enumerate(sources):
        if isinstance(source, Tokens):
            input_ids[row, : source.length] = source.input_ids
            if source.token_types is not None:
                token_types[row, : source.length] = source.token_types
    return {"input_ids": input_ids, "token_type_ids": token_types, "source_length": lengths}

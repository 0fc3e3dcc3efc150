"""What a caller may give: texts, pairs of texts, images and sounds, read and put into requests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from regard.client.failures import InvalidTextError
from regard.client.requests.values import read_count
from regard.errors import InvalidInputError
from regard.v1 import transcription_pb2

Pair = tuple[str, str]
"""Two texts: such as a premise and a hypothesis, or a question and its context."""
Image = bytes | os.PathLike[str]
"""An image file: its bytes, or where it lies."""


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Sound without a file around it: one channel of samples [n], from -1 to 1, and how many are a second."""

    samples: npt.ArrayLike
    sampling_rate: int


Sound = bytes | os.PathLike[str] | Samples
"""An audio file: its bytes, or where it lies; or samples."""
BYTES_PER_REQUEST = 8 * 2**20
"""Half of what a server takes by default, so that a request of many images is not refused for its size."""
A = TypeVar("A")
B = TypeVar(
    "B",
    str,
    bytes,
    str | bytes,
    str | bytes | Pair,
    str | Pair,
    bytes | tuple[bytes, str],
    Pair,
    transcription_pb2.AudioInput,
)


def split(inputs: Iterable[A], size: int, name: str, read: Callable[[A, str], B]) -> Iterator[tuple[int, list[B]]]:
    """Yield the inputs, each `read`, in parts of at most `size`, with the index of each part's first.

    A part of several holds no more than `BYTES_PER_REQUEST`. `name` is that of the inputs, for errors.
    """
    if isinstance(inputs, str | bytes | os.PathLike):
        raise InvalidTextError(f"{name} must be several inputs, not one: the method of one input takes it", field=name)
    part: list[B] = []
    held = first_index = 0
    for index, given in enumerate(inputs):
        one = read(given, f"{name}[{index}]")
        size_of_one = _size_of(one)
        if part and held + size_of_one > BYTES_PER_REQUEST:
            yield first_index, part
            part, held, first_index = [], 0, index
        part.append(one)
        held += size_of_one
        if len(part) == size:
            yield first_index, part
            part, held, first_index = [], 0, index + 1
    if part:
        yield first_index, part


def _size_of(given: str | bytes | Pair | tuple[bytes, str] | transcription_pb2.AudioInput) -> int:
    """Return how large an input is, about."""
    if isinstance(given, transcription_pb2.AudioInput):
        return given.ByteSize()
    return sum(map(len, given)) if isinstance(given, tuple) else len(given)


def read_text(text: object, field: str) -> str:
    """Return `text`, or raise `InvalidTextError` for what can't be sent at all; the server judges the rest."""
    if not isinstance(text, str):
        raise InvalidTextError(f"{field} must be a string, not {type(text).__name__}", field=field)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidTextError(
            f"{field} holds a lone surrogate (U+{ord(text[error.start]):04X}) at position {error.start}, "
            "which UTF-8 can't carry: decode the text with its right encoding, or replace it",
            field=field,
        ) from error
    return text


def read_image(image: object, field: str) -> bytes:
    """Return the bytes of an image file; the server judges them. Raises `OSError` if it can't be read."""
    if isinstance(image, bytes):
        return image
    if isinstance(image, os.PathLike):
        return Path(image).read_bytes()
    raise InvalidInputError(
        f"{field} must be the bytes of an image file or a pathlib.Path, not {type(image).__name__}", field=field
    )


def read_sound(sound: object, field: str) -> transcription_pb2.AudioInput:
    """Return the message of a sound; the server judges it. Raises `OSError` for a file that can't be read."""
    if isinstance(sound, bytes):
        return transcription_pb2.AudioInput(file=sound)
    if isinstance(sound, os.PathLike):
        return transcription_pb2.AudioInput(file=Path(sound).read_bytes())
    if isinstance(sound, Samples):
        try:
            samples = np.asarray(sound.samples, "<f4")
        except (TypeError, ValueError) as error:
            raise InvalidInputError(f"{field}.samples must be numbers", field=f"{field}.samples") from error
        if samples.ndim != 1:
            raise InvalidInputError(
                f"{field}.samples must be one channel, [n], not {list(samples.shape)}", field=f"{field}.samples"
            )
        given = transcription_pb2.AudioSamples(
            samples=samples.tobytes(), sampling_rate=read_count(sound.sampling_rate, f"{field}.sampling_rate")
        )
        return transcription_pb2.AudioInput(samples=given)
    raise InvalidInputError(
        f"{field} must be the bytes of an audio file, a pathlib.Path or Samples, not {type(sound).__name__}",
        field=field,
    )


def read_pair(given: object, field: str) -> Pair:
    """Return two texts; raises `InvalidTextError` for anything else."""
    if not isinstance(given, tuple) or len(given) != 2:
        raise InvalidTextError(f"{field} must be a tuple of two texts, not {type(given).__name__}", field=field)
    return read_text(given[0], f"{field}[0]"), read_text(given[1], f"{field}[1]")


def read_input(given: object, field: str) -> str | bytes | Pair:
    """Return a text, two texts, or the bytes of an image file; raises as what reads each of them does."""
    if isinstance(given, tuple):
        return read_pair(given, field)
    return read_image(given, field) if isinstance(given, bytes | os.PathLike) else read_text(given, field)

"""Numbers, words and priorities of options, as messages hold them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, TypeVar

from regard.errors import InvalidInputError
from regard.v1 import priority_pb2

Priority = Literal["low", "normal", "high"]
V = TypeVar("V")


def read_count(value: int | None, field: str, bits: int = 32, least: int = 1) -> int:
    """Return a count of at least 1, or `least`, or 0 where none is given: the server's default."""
    if value is None:
        return 0
    if not hasattr(value, "__index__"):
        raise InvalidInputError(f"{field} must be a whole number, not {type(value).__name__}", field=field)
    if not least <= value < 2**bits:
        raise InvalidInputError(f"{field} must be at least {least}, not {value}", field=field)
    return value


def read_frames(frames: int | None, *, streaming: bool = True) -> int | None:
    """Return the f of AlignAtt, or None; raises `InvalidInputError` for what counts nothing, and for no stream."""
    if frames is None:
        return None
    if not streaming:
        raise InvalidInputError(
            "align_att_frames marks tokens as they are made: ask for a stream", field="align_att_frames"
        )
    return read_count(frames, "align_att_frames")


def read_indices(values: Iterable[int], field: str) -> list[int]:
    """Return indices that are counted from 0; raises `InvalidInputError` for any other."""
    indices = list(values)
    for value in indices:
        if not 0 <= value < 2**32:
            raise InvalidInputError(f"{field} are counted from 0, so {value} is none", field=field)
    return indices


def enum_value(value_of: Callable[[str], V], prefix: str, word: str, field: str) -> V:
    """Return an enum's value by its word, behind the `prefix` of its names; raises `InvalidInputError` for no word."""
    try:
        return value_of(prefix + word.upper())
    except ValueError as error:
        raise InvalidInputError(f"{field} has no value {word!r}", field=field) from error


def priority_message(word: Priority | None) -> priority_pb2.Priority.ValueType:
    """Return the message of a priority; unspecified where none is given."""
    if word is None:
        return priority_pb2.PRIORITY_UNSPECIFIED
    return enum_value(priority_pb2.Priority.Value, "PRIORITY_", word, "priority")

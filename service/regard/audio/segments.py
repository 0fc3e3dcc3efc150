"""The segments of a text of speech: its parts between the times that the model wrote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SpokenSegment:
    """A part of a text, and when it was said, in seconds of the sound."""

    start_s: float
    end_s: float
    text: str


@dataclass(frozen=True, slots=True)
class Times:
    """The tokens that are times: those from `first_token_id` on, `seconds_per_token` apart."""

    first_token_id: int
    seconds_per_token: float

    def of(self, token_id: int) -> float | None:
        """Return the time that a token stands for, in seconds of its window; None for a token of the text."""
        steps = token_id - self.first_token_id
        return None if steps < 0 else steps * self.seconds_per_token


def cut(
    token_ids: Sequence[int], ends: Sequence[int], text: str, times: Times, window: tuple[float, float]
) -> list[SpokenSegment]:
    """Return the segments of a window's `text`; put together, they are all of it.

    `ends` tells for each of `token_ids` where its share of the text ends. `window` is where the window
    begins and its sound ends: there begins and ends what the model gave no time for.
    """
    start_s, end_s = window
    segments: list[SpokenSegment] = []
    began, given = start_s, 0
    for token_id, end in zip((*token_ids, None), (*ends, len(text)), strict=True):
        seconds = end_s - start_s if token_id is None else times.of(token_id)
        if seconds is None:
            continue
        part = text[given:end]
        if part:
            segments.append(SpokenSegment(began, max(start_s + seconds, began), part))
            given = end
        began = start_s + seconds
    return segments

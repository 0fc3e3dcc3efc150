"""When, in the sound that a person hears, each source position of a window is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Frames:
    """The source positions of a window, in order; each stands for `seconds_per_frame` of it.

    The window starts at `start_s` of the sound, whose part in it ends at `end_s`; the frames beyond
    are silence.
    """

    count: int
    start_s: float
    end_s: float
    seconds_per_frame: float

    def time_of(self, index: int) -> float:
        """Return when a frame begins, in seconds of the sound."""
        return self.start_s + index * self.seconds_per_frame

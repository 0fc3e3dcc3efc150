"""What every part of the comparison is given: the course, the machine's cores, and how long to measure."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from load_tests.peers.course import Course

PRECISIONS = ("fp32", "int8")


@dataclass(frozen=True)
class Setting:
    """One shape; `quick` is a rehearsal, whose figures say nothing. `say` tells how far it is."""

    course: Course
    rounds: int
    quick: bool
    say: Callable[[str], None]
    precisions: tuple[str, ...] = PRECISIONS

    @cached_property
    def cores(self) -> int:
        """How many cores there are for all contestants."""
        return len(os.sched_getaffinity(0))

    @property
    def splits(self) -> list[tuple[int, int]]:
        """All ways to share the cores evenly: workers, and the threads of each."""
        return [(workers, self.cores // workers) for workers in range(1, self.cores + 1) if self.cores % workers == 0]

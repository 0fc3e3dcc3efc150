"""How long a client goes on asking a server that has no room.

Each time it waits as long as the server says, and a time more that is drawn from an interval twice as long as the last
one: so callers who were refused together don't all come back together. Source: M. Brooker, Exponential Backoff And
Jitter, AWS Architecture Blog, 2015 ("full jitter").
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence

from regard.client.failures import Failure, is_refusal

FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 5.0


class Patience:
    """For inputs that were sent together: whether those that were refused are sent again, and when."""

    def __init__(
        self,
        patience_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._clock = clock
        self._draw = draw
        self._ends_at = clock() + patience_s
        self._interval_s = FIRST_WAIT_S

    def wait_s(self, answers: Sequence[object]) -> float | None:
        """Return after how many seconds what was refused is to be sent again; None if nothing was, or no more."""
        told_s = [one.retry_after_s or 0.0 for one in answers if isinstance(one, Failure) and is_refusal(one)]
        if not told_s:
            return None
        wait_s = max(told_s) + self._draw() * self._interval_s
        self._interval_s = min(2 * self._interval_s, LONGEST_WAIT_S)
        return wait_s if self._clock() + wait_s < self._ends_at else None


def refused_runs(answers: Sequence[object]) -> list[slice]:
    """Return where answers say that there was no room: runs of them that follow one another."""
    runs: list[slice] = []
    for index, answer in enumerate(answers):
        if not isinstance(answer, Failure) or not is_refusal(answer):
            continue
        if runs and runs[-1].stop == index:
            runs[-1] = slice(runs[-1].start, index + 1)
        else:
            runs.append(slice(index, index + 1))
    return runs

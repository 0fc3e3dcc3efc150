"""When an open loop asks: a Poisson process, which waits for no answer."""

from __future__ import annotations

import random
import time
from collections.abc import Callable


class PoissonArrivals:
    """The starts of requests that come independently of each other, `rate_per_s` of them on average.

    `seed` and the moment of making lay every start down, so that neither a slow server nor a busy client moves
    one: whoever measures from the start that was due counts the time that a request had to wait for its client too.
    """

    def __init__(self, rate_per_s: float, seed: int, clock: Callable[[], float] = time.perf_counter) -> None:
        """Let the first request be due now. Raises `ValueError` for a rate that isn't above 0."""
        if not rate_per_s > 0:
            raise ValueError(f"the rate must be above 0 requests per second, not {rate_per_s:g}")
        self.rate_per_s = rate_per_s
        self._random = random.Random(seed)
        self._clock = clock
        self._due_s = clock()

    def wait_s(self) -> float:
        """Return the seconds until the next request is due; 0 if that is past."""
        return max(0.0, self._due_s - self._clock())

    def take(self) -> float:
        """Return when the next request is, or was, due on the clock, and go on to the one after it."""
        due_s = self._due_s
        self._due_s += self._random.expovariate(self.rate_per_s)
        return due_s

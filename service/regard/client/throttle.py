"""What a client refuses by itself while its server refuses most of what it sends.

To refuse a request takes a server time as well, which those lack that it could answer: under a load that is many times
what it can bear, most of the time. So its clients send about twice as many as it takes, and no more.

Source: B. Beyer et al. (eds.), Site Reliability Engineering, O'Reilly 2016, ch. 21 "Handling Overload",
"Client-Side Throttling", equation 21-1; here the numbers are forgotten exponentially, not after two minutes at once,
and the first refusals are free.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from threading import Lock

import grpc

from regard.client.failures import Failure, RequestFailed, is_refusal

SENT_FOR_EACH_TAKEN = 2.0
"""K of the equation."""
FREE = 10.0
"""So many refusals are no overload."""
FORGOTTEN_S = 5.0
"""After so long a request counts for a third (1/e)."""


class Throttle:
    """Decides, for one server, which requests are worth sending. Any thread may use it.

    Of the requests of late, N, the server took A: the next one is refused here with the probability
    (N - 2 A - `free`) / (N + 1), if that is more than 0; never, where `free` is infinite. A request that it refused for
    a full queue is one that it didn't take, and so is one refused here; whatever else came of a request, it took it.
    """

    def __init__(
        self,
        free: float = FREE,
        *,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._free = free
        self._clock = clock
        self._draw = draw
        self._requests = 0.0
        self._taken = 0.0
        self._counted_at = clock()
        self._retry_after_s: float | None = None
        self._changing = Lock()

    def refusal(self) -> Failure | None:
        """Return why a request is not to be sent, or None if it is."""
        with self._changing:
            self._forget()
            share = (self._requests - SENT_FOR_EACH_TAKEN * self._taken - self._free) / (self._requests + 1)
            if share <= 0 or self._draw() >= share:
                return None
            self._requests += 1
            message = (
                f"not sent: of about {self._requests:.0f} requests of late the server took {self._taken:.0f}; "
                "send fewer, or try again later"
            )
        return Failure(grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], message, retry_after_s=self._retry_after_s)

    def check(self) -> None:
        """Raise `RequestFailed` for a request that is not to be sent."""
        if (refusal := self.refusal()) is not None:
            raise RequestFailed(refusal)

    def answered(self, error: RequestFailed | None = None) -> None:
        """Count a request that was sent and has its answer, or the first of it, or an error."""
        with self._changing:
            self._forget()
            self._requests += 1
            if error is not None and is_refusal(error):
                self._retry_after_s = error.retry_after_s
            else:
                self._taken += 1

    def _forget(self) -> None:
        now = self._clock()
        left = math.exp((self._counted_at - now) / FORGOTTEN_S)
        self._requests *= left
        self._taken *= left
        self._counted_at = now

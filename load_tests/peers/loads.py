"""Loads upon a gRPC server: callers who wait for their answers, and requests that come whether or not it answers.

Messages are bytes made beforehand, so that asking costs little beside the server, which has the same cores.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle
from types import TracebackType
from typing import Generic, Self, TypeVar

import grpc
import numpy as np

from load_tests.arrivals import PoissonArrivals

T = TypeVar("T")
Expected = TypeVar("Expected")
Ask = Callable[[T], Awaitable[str]]
"""Sends one request, and returns how it ended: a gRPC code's name, or why the answer isn't what was asked."""
OK = "OK"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: when it was due, on the load's own clock, when it had ended, and how."""

    due_s: float
    ended_s: float
    outcome: str

    @property
    def latency_s(self) -> float:
        """How long its caller waited from when it was due."""
        return self.ended_s - self.due_s


@dataclass(frozen=True)
class Load:
    """What came of a load that lasted `seconds`."""

    seconds: float
    asked: Sequence[Asked]

    @property
    def outcomes(self) -> Counter[str]:
        """How many requests ended in which way."""
        return Counter(one.outcome for one in self.asked)

    def answered_per_s(self, after_s: float = 0.0) -> float:
        """Return the answers per second that came within the load, those of its first `after_s` left out."""
        within = sum(one.outcome == OK and after_s <= one.ended_s < self.seconds for one in self.asked)
        return within / (self.seconds - after_s)

    def held(self, peak_per_s: float, after_s: float = 0.0) -> float:
        """Return the answers over those at the peak, or over what was offered where that is less."""
        offered = sum(after_s <= one.due_s for one in self.asked) / (self.seconds - after_s)
        return self.answered_per_s(after_s) / min(peak_per_s, offered)

    def latency_ms(self, quantile: float, outcome: str = OK) -> float:
        """Return a quantile of the latencies of requests that ended in one way; infinite if none did."""
        latencies = [one.latency_s for one in self.asked if one.outcome == outcome]
        return 1000 * float(np.quantile(latencies, quantile)) if latencies else float("inf")


class Line(Generic[Expected]):
    """A connection that sends bytes to one method and gives its answers to `check`, which returns an outcome.

    `check` is also given what the request expects, which comes with it.
    """

    def __init__(self, target: str, method: str, check: Callable[[Expected, bytes], str]) -> None:
        self._channel = grpc.aio.insecure_channel(target, options=[("grpc.max_receive_message_length", -1)])
        self._call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(method)
        self._check = check

    async def ask(self, request: tuple[bytes, Expected]) -> str:
        """Send a message and let its answer be checked."""
        message, expected = request
        try:
            answer = await self._call(message)
        except grpc.aio.AioRpcError as error:
            return str(error.code().name)
        return self._check(expected, answer)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._channel.close()


async def closed(ask: Ask[T], requests: Iterable[T], callers: int, seconds: float = math.inf) -> Load:
    """Let `callers` ask one request after the other for so many seconds or until none is left."""
    begun_s = time.perf_counter()
    waiting = iter(requests)
    asked: list[Asked] = []

    async def caller() -> None:
        for request in waiting:
            due_s = time.perf_counter() - begun_s
            outcome = await ask(request)
            asked.append(Asked(due_s, time.perf_counter() - begun_s, outcome))
            if time.perf_counter() - begun_s >= seconds:
                return

    await asyncio.gather(*(caller() for _ in range(callers)))
    return Load(min(seconds, time.perf_counter() - begun_s), asked)


async def opened(ask: Ask[T], requests: Sequence[T], rate_per_s: float, seconds: float, seed: int) -> Load:
    """Send requests at random for so many seconds, `rate_per_s` on average, and wait for the last answers."""
    begun_s = time.perf_counter()
    arrivals = PoissonArrivals(rate_per_s, seed)
    asked: list[Asked] = []

    async def send(request: T, due_s: float) -> None:
        outcome = await ask(request)
        asked.append(Asked(due_s - begun_s, time.perf_counter() - begun_s, outcome))

    async with asyncio.TaskGroup() as sending:
        for request in cycle(requests):
            await asyncio.sleep(arrivals.wait_s())
            due_s = arrivals.take()
            if due_s - begun_s >= seconds:
                break
            sending.create_task(send(request, due_s))
    return Load(seconds, asked)

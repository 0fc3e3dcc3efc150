"""What a client refuses by itself."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

import grpc
import pytest

from regard.client import AsyncClient, Client, Failure, RequestFailed
from regard.client.throttle import Throttle

REFUSED = Failure(code=8, message="512 requests wait already", retry_after_s=0.5)


@dataclass
class Simulated:
    """A throttle before a server that serves so many requests a second and lets a hundred wait, by its own clock."""

    serves_per_s: float
    queue: int = 100
    now: float = 0.0
    sent: int = 0
    taken: int = 0
    throttle: Throttle = field(init=False)
    _waiting: float = 0.0

    def __post_init__(self) -> None:
        self.throttle = Throttle(clock=lambda: self.now, draw=random.Random(7).random)

    def offer(self, per_s: float, seconds: float) -> tuple[float, float]:
        """Ask so many times a second; return how many a second were sent, and how many were taken."""
        sent, taken = self.sent, self.taken
        for _ in range(int(per_s * seconds)):
            self.now += 1 / per_s
            self._waiting = max(self._waiting - self.serves_per_s / per_s, 0.0)
            if self.throttle.refusal() is not None:
                continue
            self.sent += 1
            if self._waiting < self.queue:
                self._waiting += 1
                self.taken += 1
                self.throttle.answered()
            else:
                self.throttle.answered(RequestFailed(REFUSED))
        return (self.sent - sent) / seconds, (self.taken - taken) / seconds


@pytest.mark.parametrize("times", [4, 16, 64])
def test_under_overload_twice_as_much_is_sent_as_is_taken(times: int) -> None:
    """And the server stays as busy as it can be."""
    server = Simulated(serves_per_s=50)
    server.offer(50 * times, 20)
    sent_per_s, taken_per_s = server.offer(50 * times, 20)
    assert sent_per_s == pytest.approx(100, rel=0.1)
    assert taken_per_s == pytest.approx(50, rel=0.1)


def test_below_saturation_everything_is_sent() -> None:
    """Nor does it matter how much there was a minute ago."""
    server = Simulated(serves_per_s=50)
    assert server.offer(40, 20) == (40, 40)
    server.offer(800, 20)
    server.offer(40, 40)
    assert server.offer(40, 20) == (40, 40)


def test_the_first_refusals_are_free() -> None:
    """Who asks now and then, and finds a full queue each time, is always sent on."""
    server = Simulated(serves_per_s=0.0, queue=0)
    assert server.offer(0.5, 600) == (0.5, 0.0)
    throttle = Throttle(clock=lambda: 0.0, draw=lambda: 0.0)
    for _ in range(10):
        assert throttle.refusal() is None
        throttle.answered(RequestFailed(REFUSED))
    throttle.answered(RequestFailed(REFUSED))
    refusal = throttle.refusal()
    assert refusal == Failure(
        code=8,
        message="not sent: of about 12 requests of late the server took 0; send fewer, or try again later",
        retry_after_s=0.5,
    )


@pytest.mark.parametrize(
    "error",
    [Failure(code=8, message="the message is too long"), Failure(code=3, message="bad"), Failure(code=14, message="")],
)
def test_other_errors_are_no_refusals(error: Failure) -> None:
    """A message that is too long has the same code, and nothing says when to send it again."""
    throttle = Throttle(clock=lambda: 0.0, draw=lambda: 0.0)
    for _ in range(1000):
        throttle.answered(RequestFailed(error))
        assert throttle.refusal() is None


def test_it_can_be_done_without() -> None:
    """Where refusals are free without end, none is made here."""
    throttle = Throttle(math.inf, clock=lambda: 0.0, draw=lambda: 0.0)
    for _ in range(1000):
        throttle.answered(RequestFailed(REFUSED))
        assert throttle.refusal() is None


def refuse(server, times: int) -> None:
    """Have a server refuse for a full queue, so many times."""
    server.pushback_ms = "500"
    server.refusals = [grpc.StatusCode.RESOURCE_EXHAUSTED] * times


def test_a_client_sends_less_to_a_server_that_refuses(server) -> None:
    """Its failures have the server's code and its time to try again; what isn't throttled is all sent."""
    refuse(server, 1000)
    with Client(server.target, inputs_per_request=1, requests_in_flight=1) as client:
        answers = client.translate_many(["a"] * 300)
        assert {(answer.code_name, answer.retry_after_s) for answer in answers} == {("RESOURCE_EXHAUSTED", 0.5)}
        unsent = [answer for answer in answers if answer.message.startswith("not sent: ")]
        assert len(unsent) == 300 - len(server.requests) > 150
        with pytest.raises(RequestFailed, match="not sent: "):
            for _ in range(100):
                list(client.stream_translate("a"))
    server.requests.clear()
    with Client(server.target, inputs_per_request=1, requests_in_flight=1, throttled=False) as client:
        client.translate_many(["a"] * 300)
    assert len(server.requests) == 300


async def test_so_does_the_async_client(server) -> None:
    """Whatever it is asked for."""
    refuse(server, 1000)
    async with AsyncClient(server.target, inputs_per_request=1, requests_in_flight=1) as client:
        answers = await client.translate_many(["a"] * 300)
        unsent = [answer for answer in answers if answer.message.startswith("not sent: ")]
        assert len(unsent) == 300 - len(server.requests) > 150
        with pytest.raises(RequestFailed, match="not sent: "):
            for _ in range(100):
                async for _ in client.stream_translate("a"):
                    pass

"""Users of a Regard server, for locust.

`make load` runs them against a server of its own. Against another one:

    locust -f load_tests/locustfile.py --host localhost:50051 ClosedUser        (users that wait for their answers)
    locust -f load_tests/locustfile.py --host localhost:50051 -u 1 OpenUser --rate 40      (requests that wait for none)

A loop is locust's type of a request, and a kind of request its name. Calls go through the generated stubs with gRPC's
retries off, since `regard.client` would try again what came to nothing.
"""

from __future__ import annotations

import time
from argparse import ArgumentParser
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar

import grpc
import grpc.experimental.gevent
from gevent.pool import Group
from locust import User, events, task
from locust.env import Environment

from load_tests import kinds
from load_tests.arrivals import PoissonArrivals
from load_tests.kinds import Kind, Message, Mix
from regard.v1 import caption_pb2_grpc, classification_pb2_grpc, translation_pb2_grpc

grpc.experimental.gevent.init_gevent()

TIMEOUT_S = 30.0
CHANNEL_OPTIONS = (
    ("grpc.enable_retries", 0),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),  # a connection for each user, as different people have
)
CODES = {code.value[0]: code.name for code in grpc.StatusCode}


class RequestError(Exception):
    """A request came to nothing; the text is the gRPC status and what the server said."""


@events.init_command_line_parser.add_listener
def add_options(parser: ArgumentParser, **_: Any) -> None:
    """Let the users be told what to ask, and how often."""
    parser.add_argument("--rate", type=float, default=20.0, help="requests per second of the open loop (default: 20)")
    parser.add_argument("--think", type=float, default=0.0, help="seconds between an answer and the next request")
    parser.add_argument("--attention-share", type=float, default=0.25, help="of all requests (default: 0.25)")
    parser.add_argument("--seed", type=int, default=1, help="of what is asked, and when (default: 1)")


@events.test_start.add_listener
def prepare(environment: Environment, **_: Any) -> None:
    """Draw the scenes, let every user draw from the same mix, and ask once for each kind, unmeasured."""
    options = environment.parsed_options
    RegardUser.mix = Mix(kinds.load(), options.attention_share, options.seed)
    connection = Connection(environment.host)
    for kind, message in RegardUser.mix.one_of_each():
        with suppress(RequestError):  # it will come again, and be counted
            connection.call(kind, message)
    connection.close()


class Connection:
    """A connection to a server, whose calls go out once and no more."""

    def __init__(self, target: str) -> None:
        self._channel = grpc.insecure_channel(target, CHANNEL_OPTIONS)
        self._calls: dict[str, Callable[..., Any]] = {
            "translate": translation_pb2_grpc.TranslationServiceStub(self._channel).Translate,
            "classify": classification_pb2_grpc.ClassificationServiceStub(self._channel).Classify,
            "caption": caption_pb2_grpc.CaptionServiceStub(self._channel).Caption,
        }

    def call(self, kind: Kind, message: Message) -> int:
        """Make a request of one input and return the answer's size in bytes, or raise `RequestError`."""
        try:
            response = self._calls[kind.task](message, timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            raise RequestError(f"{error.code().name}: {error.details()}") from error
        (result,) = response.results
        if result.HasField("failure"):
            raise RequestError(f"{CODES[result.failure.code]}: {result.failure.message}")
        return response.ByteSize()

    def close(self) -> None:
        """Close it; what is unanswered is cancelled."""
        self._channel.close()


class RegardUser(User):
    """Asks over a connection of its own, and tells locust of every answer."""

    abstract = True
    mix: ClassVar[Mix]
    """What all users draw their requests from."""
    loop: ClassVar[str]
    """What locust is told as the request's type."""

    def on_start(self) -> None:
        """Connect."""
        self.connection = Connection(self.host)

    def on_stop(self) -> None:
        """Disconnect."""
        self.connection.close()

    def ask(self, kind: Kind, message: Message, started_s: float) -> None:
        """Make a request whose time counts from `started_s`, of `time.perf_counter`."""
        length, failure = 0, None
        try:
            length = self.connection.call(kind, message)
        except RequestError as error:
            failure = error
        took_s = time.perf_counter() - started_s
        self.environment.events.request.fire(
            request_type=self.loop,
            name=str(kind),
            response_time=took_s * 1000,
            response_length=length,
            exception=failure,
            start_time=time.time() - took_s,
            context={},
        )


class ClosedUser(RegardUser):
    """Asks, waits for the answer, thinks for a constant time, and asks again."""

    loop = "closed"

    def wait_time(self) -> float:
        """Return the seconds that it thinks."""
        return self.environment.parsed_options.think

    @task
    def ask_next(self) -> None:
        """Ask, and wait."""
        kind, message = self.mix.draw()
        self.ask(kind, message, time.perf_counter())


class OpenUser(RegardUser):
    """Asks at the times of a Poisson process, whatever is still unanswered; one such user is the whole process.

    Time counts from when a request was due, so that requests which queue up in this very process show in the
    latency: there is no coordinated omission.
    """

    loop = "open"
    fixed_count = 1

    def on_start(self) -> None:
        """Connect, and lay the starts down."""
        super().on_start()
        options = self.environment.parsed_options
        self.arrivals = PoissonArrivals(options.rate, options.seed)
        self.unanswered = Group()

    def wait_time(self) -> float:
        """Return the seconds until the next request is due."""
        return self.arrivals.wait_s()

    @task
    def ask_next(self) -> None:
        """Ask, and don't wait."""
        kind, message = self.mix.draw()
        self.unanswered.spawn(self.ask, kind, message, self.arrivals.take())

    def on_stop(self) -> None:
        """Wait for what is unanswered, since leaving it out would leave out the slowest, and disconnect."""
        self.unanswered.join()
        super().on_stop()

"""What the HTTP port reads of a connection, and what it says of one that sends nothing."""

from __future__ import annotations

import io
import itertools
import socket
import threading
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from regard.rpc import http
from regard.rpc.http import HEAD_TIMEOUT_S, AnswerWriter, HeadReader, HttpServer, make_app

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment


class Trickle:
    """A connection that sends a byte every four seconds."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timeouts: list[float | None] = []
        self._timeout: float | None = 7.0

    def gettimeout(self) -> float | None:
        """Return what a socket would."""
        return self._timeout

    def settimeout(self, timeout_s: float | None) -> None:
        """Set what `gettimeout` returns."""
        self._timeout = timeout_s

    def recv_into(self, buffer: memoryview) -> int:
        """Write the next byte."""
        self.now += 4.0
        self.timeouts.append(self._timeout)
        buffer[:1] = b"x"
        return 1


class Narrow:
    """A connection that takes three bytes at a time."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def send(self, data: memoryview) -> int:
        """Take the next bytes."""
        self.sent.append(bytes(data[:3]))
        return len(self.sent[-1])

    sendall = send


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpServer]:
    """Yield a server that waits for a head no longer than it must."""
    monkeypatch.setattr(http, "HEAD_TIMEOUT_S", 0.05)
    server = HttpServer("127.0.0.1", 0, make_app(CollectorRegistry(), list))
    server.start()
    yield server
    server.stop()


def test_a_head_has_a_deadline_as_a_whole() -> None:
    """Each byte has what the bytes before it left; what follows the head has the connection's own time again."""
    connection = Trickle()
    reader = HeadReader(connection, lambda: connection.now)  # type: ignore[arg-type]
    with pytest.raises(TimeoutError):
        io.BufferedReader(reader).readline()

    assert connection.timeouts == [HEAD_TIMEOUT_S, HEAD_TIMEOUT_S - 4, HEAD_TIMEOUT_S - 8]
    reader.end_head()
    assert reader.read(1) == b"x"
    assert connection.timeouts[-1] == 7.0


@pytest.mark.parametrize("sent", [b"", b"GET /heal", b"GET /healthz HTTP/1.1\r\nHost: a", b"\x16\x03\x01\x02"])
def test_a_connection_without_a_request_is_one_line_of_the_log(
    server: HttpServer, sent: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    """Idle, half sent or meant for TLS: it is closed, and nothing else is written anywhere."""
    with capture_logs() as logged, socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(sent)
        assert connection.recv(1) == b""

    assert [(line["event"], line["log_level"]) for line in logged] == [("connection ended", "debug")]
    assert capfd.readouterr().err == ""


def test_a_whole_request_is_answered(server: HttpServer) -> None:
    """The deadline is that of its head."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(b"GET /healthz HTTP/1.0\r\nHost: a\r\n\r\n")
        answer = connection.makefile("rb").read()

    assert answer.endswith(b"\r\n\r\nok\n")


@pytest.mark.parametrize("ahead", [False, True])
def test_an_answer_goes_as_it_is_taken(ahead: bool) -> None:
    """Every piece has the connection's patience anew, and a byte that went ahead is not sent again."""
    connection = Narrow()
    writer = AnswerWriter(connection)  # type: ignore[arg-type]
    if ahead:
        writer.send_first_byte()

    assert writer.write(b"HTTP/1.0 200 OK\r\n") == 17
    writer.send_first_byte()
    assert writer.write(b"rest") == 4

    assert b"".join(connection.sent) == b"HTTP/1.0 200 OK\r\nrest"
    assert (connection.sent[0] == b"H") is ahead


def test_who_reads_no_more_is_let_go(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """A client that leaves its answer where it is keeps neither a thread nor a line of the log."""
    monkeypatch.setattr(http._Handler, "timeout", 0.05)
    closed = threading.Event()

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            return itertools.repeat(bytes(1 << 20))

        def close(self) -> None:
            closed.set()

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        return Body()

    server = HttpServer("127.0.0.1", 0, app)
    server.start()
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert closed.wait(10)
        connection.makefile("rb").read()
    server.stop()

    assert capfd.readouterr().err == ""

"""What the HTTP port reads of a connection, and what it says of one that sends nothing."""

from __future__ import annotations

import io
import socket
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from regard.rpc import http
from regard.rpc.http import HEAD_TIMEOUT_S, HeadReader, HttpServer, make_app


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

"""What the playground reads of a request."""

from __future__ import annotations

import socket
from http import HTTPStatus

import pytest

from regard.rpc.playground.guard import BODY_TIMEOUT_S, Refusal, read_body


class Trickle:
    """A body of which a byte comes every four seconds."""

    def __init__(self, connection: socket.socket) -> None:
        self.now = 0.0
        self.timeouts: list[float | None] = []
        self._connection = connection

    def read1(self, count: int) -> bytes:
        """Return the next byte."""
        self.now += 4.0
        self.timeouts.append(self._connection.gettimeout())
        return b" "


def test_a_body_has_a_deadline_as_a_whole() -> None:
    """Each byte has what the bytes before it left; the answer then has the connection's own time again."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(7.0)
        body = Trickle(ours)
        environ = {
            "CONTENT_TYPE": "application/json",
            "CONTENT_LENGTH": "100",
            "wsgi.input": body,
            "regard.connection": ours,
        }
        with pytest.raises(Refusal, match="did not arrive within 10 seconds") as refused:
            read_body(environ, 1000, lambda: body.now)

        assert refused.value.status == HTTPStatus.REQUEST_TIMEOUT
        assert body.timeouts == [BODY_TIMEOUT_S, BODY_TIMEOUT_S - 4, BODY_TIMEOUT_S - 8]
        assert ours.gettimeout() == 7.0


def test_a_body_is_read_to_its_length_and_no_further() -> None:
    """In as many pieces as it takes, however it is sent."""
    ours, theirs = socket.socketpair()
    with ours, theirs, ours.makefile("rb") as stream:
        theirs.sendall(b"{" + b" " * 999 + b"}next")
        environ = {
            "CONTENT_TYPE": "application/json; charset=utf-8",
            "CONTENT_LENGTH": "1001",
            "wsgi.input": stream,
            "regard.connection": ours,
        }
        assert read_body(environ, 2000) == b"{" + b" " * 999 + b"}"

"""What the playground makes of a call that failed."""

from __future__ import annotations

import grpc
import pytest

from regard.rpc.playground.bridge import refusal_of


class Failed:
    """A call that has ended with a code."""

    def __init__(self, code: grpc.StatusCode) -> None:
        self._code = code

    def code(self) -> grpc.StatusCode:
        """Return the code."""
        return self._code

    def details(self) -> str:
        """Return no more than that."""
        return ""

    def trailing_metadata(self) -> None:
        """Return none."""


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_every_code_has_a_status(code: grpc.StatusCode) -> None:
    """No code is without its status of HTTP, and the status has a name."""
    refusal = refusal_of(Failed(code))

    assert (refusal.code, refusal.message) == (code, code.name)
    assert 400 <= refusal.status < 600
    assert refusal.status_line.partition(" ")[2]


@pytest.mark.parametrize(
    ("code", "line"),
    [
        (grpc.StatusCode.CANCELLED, "499 Client Closed Request"),
        (grpc.StatusCode.UNIMPLEMENTED, "501 Not Implemented"),
        (grpc.StatusCode.INTERNAL, "500 Internal Server Error"),
        (grpc.StatusCode.PERMISSION_DENIED, "403 Forbidden"),
    ],
)
def test_a_code_has_its_own_status(code: grpc.StatusCode, line: str) -> None:
    """A request that somebody took back is no fault of the server, for one."""
    assert refusal_of(Failed(code)).status_line == line

"""What can go wrong with a request, as a value and as exceptions.

RegardError
  InvalidInputError
    InvalidTextError    refused before it was sent: not text, or text that UTF-8 can't carry
  RequestFailed         the server, or the way to it, failed the request
    ServerUnreachable   nothing answers at the server's address
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import grpc

from regard.errors import InvalidInputError, RegardError

_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}
_RETRY_KEY = "grpc-retry-pushback-ms"
_UNREACHED = ("failed to connect to all addresses", "DNS resolution failed", "Connection reset", "Socket closed")
_OWN_CODES = frozenset(
    {
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why one input has no result; the other inputs are unharmed.

    `code` is the number of a `google.rpc.Code`; `field` names what is at fault, such as
    `texts[2]`, and is empty if no field is. `retry_after_s` is the time after which the same
    input may succeed, where the server knows it.
    """

    code: int
    message: str
    field: str = ""
    retry_after_s: float | None = None

    @property
    def code_name(self) -> str:
        """The code's name, such as `INVALID_ARGUMENT`."""
        return _CODES.get(self.code, grpc.StatusCode.UNKNOWN).name


class InvalidTextError(InvalidInputError, ValueError):
    """The input can't be sent: it is not a string, or holds a lone surrogate."""


class RequestFailed(RegardError):  # noqa: N818 (it reads as the sentence that it is)
    """The request has no result; `code`, `code_name`, `message` and `field` say why, `retry_after_s` until when."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message, field=failure.field, retry_after_s=failure.retry_after_s)
        self.failure = failure
        self.code = failure.code  # type: ignore[misc]  # fixed by class elsewhere, by the server here
        self.code_name = failure.code_name  # type: ignore[misc]


class ServerUnreachable(RequestFailed):
    """Nothing answers at the server's address."""


def failed(error: grpc.RpcError, target: str, timeout_s: float | None) -> RequestFailed:
    """Return what a broken call means, in words for whoever made it."""
    code, details = error.code(), error.details() or ""
    if code is grpc.StatusCode.UNAVAILABLE and details.startswith(_UNREACHED):
        reason = details.rpartition(": ")[2]
        return ServerUnreachable(Failure(code.value[0], f"can't reach a server at {target} ({reason})"))
    if code is grpc.StatusCode.UNIMPLEMENTED:
        details = f"what answers at {target} lacks this call: it is no Regard server, or one of another version"
    elif code is grpc.StatusCode.DEADLINE_EXCEEDED and details == "Deadline Exceeded":
        details = f"no answer within {timeout_s:g} s" if timeout_s else "no answer in time"
    return RequestFailed(Failure(code.value[0], details, retry_after_s=_retry_after(error)))


def _retry_after(error: grpc.RpcError) -> float | None:
    """Return what the server says of when to try again, in seconds."""
    sent: Iterable[Any] = error.trailing_metadata() or ()
    waits_ms = [float(value) for key, value in sent if key == _RETRY_KEY]
    return waits_ms[0] / 1000 if waits_ms else None


def is_refusal(failure: Failure | RequestFailed) -> bool:
    """Tell whether the server had no room; it says then when to try again, unlike where a message is too long."""
    return failure.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0] and failure.retry_after_s is not None


def concerns_inputs_only(error: RequestFailed) -> bool:
    """Tell whether another request may well succeed where this one failed."""
    return _CODES.get(error.code) in _OWN_CODES

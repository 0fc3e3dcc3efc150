"""Every error that Regard raises on purpose, and the gRPC code that a caller sees for it.

    RegardError
      InvalidInputError         INVALID_ARGUMENT     the caller's request can't be served as it is
      ModelNotFoundError        NOT_FOUND            no model of that name or version
      QueueFullError            RESOURCE_EXHAUSTED   it would wait in vain: too much waits before it
      OutOfMemoryError          RESOURCE_EXHAUSTED   there is no memory for the request's state
      CallerStalledError        RESOURCE_EXHAUSTED   the caller doesn't read what it asked for
      UnavailableError          UNAVAILABLE          the model is loading or draining
      DeadlineExceededError     DEADLINE_EXCEEDED    the caller's deadline passed
      RequestCancelledError     CANCELLED            the caller has gone
      EngineError               INTERNAL             the model or the runtime failed
      ConfigurationError        (start-up)           settings that can't work
        PackageError            (start-up)           a model package that can't be trusted

Servicers raise these; one interceptor turns them into a status. `message` is written for the
caller: it names the field, the problem and the limit, and never a path or a stack trace.
`EngineError` keeps its detail in the exception's cause, for the log.
"""

from __future__ import annotations

from typing import ClassVar

_MAX_QUOTED_CHARACTERS = 100


class RegardError(Exception):
    """The root. `code` is the number of a `google.rpc.Code`; `field` names what is at fault.

    `retry_after_s` is the time after which the same request may succeed, where that is known.
    """

    code: ClassVar[int] = 13
    code_name: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str, *, field: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.retry_after_s = retry_after_s


class InvalidInputError(RegardError):
    """The request can't be served as it is; the message says what to change."""

    code = 3
    code_name = "INVALID_ARGUMENT"


class ModelNotFoundError(RegardError):
    """No model of that name or version; the message lists those that there are."""

    code = 5
    code_name = "NOT_FOUND"


class QueueFullError(RegardError):
    """Too much waits before the request, for the queue or for its deadline: try again later, or elsewhere."""

    code = 8
    code_name = "RESOURCE_EXHAUSTED"


class OutOfMemoryError(RegardError):
    """There is no memory for the state that the request needs: try again later, elsewhere, or with less."""

    code = 8
    code_name = "RESOURCE_EXHAUSTED"

    def __init__(
        self, message: str = "the server has no memory left for this request; try again later, or elsewhere"
    ) -> None:
        super().__init__(message)


class CallerStalledError(RegardError):
    """The caller doesn't read the stream that it asked for, which takes memory meanwhile."""

    code = 8
    code_name = "RESOURCE_EXHAUSTED"


class UnavailableError(RegardError):
    """The model is loading or draining: try again, or elsewhere."""

    code = 14
    code_name = "UNAVAILABLE"


class DeadlineExceededError(RegardError):
    """The caller's deadline passed before the result was ready."""

    code = 4
    code_name = "DEADLINE_EXCEEDED"


class RequestCancelledError(RegardError):
    """The caller cancelled or disconnected."""

    code = 1
    code_name = "CANCELLED"


class EngineError(RegardError):
    """The model or the runtime failed on this request; others are unharmed."""


class ConfigurationError(RegardError):
    """Settings, a models directory or a port that the server can't start with."""


class PackageError(ConfigurationError):
    """A model package that is incomplete, altered or of an unknown format."""


def quoted(text: str) -> str:
    """Return a caller's text as a message quotes it: the first of it, if it is long."""
    return repr(text if len(text) <= _MAX_QUOTED_CHARACTERS else text[:_MAX_QUOTED_CHARACTERS] + "…")


def failure_of(error: Exception) -> RegardError:
    """Return what callers hear of an error; one that nobody raised on purpose is kept as the cause, for the log."""
    if isinstance(error, RegardError):
        return error
    failure = OutOfMemoryError() if isinstance(error, MemoryError) else EngineError("the engine failed on this request")
    failure.__cause__ = error
    return failure

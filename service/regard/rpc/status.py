"""The one table of errors: what a caller sees of an exception, and what only the log does."""

from __future__ import annotations

import uuid

import grpc
import structlog

from regard.errors import ConfigurationError, EngineError, RegardError

_STATUS_CODES = {status.value[0]: status for status in grpc.StatusCode}

log = structlog.get_logger("regard.rpc")


class ReportedError(EngineError):
    """An internal error that stands in the log under the id that its message gives."""


def status_code(error: RegardError) -> grpc.StatusCode:
    """Return the gRPC code of `error`."""
    return _STATUS_CODES[error.code]


def answerable(error: Exception) -> RegardError:
    """Return an error that a caller may see in place of `error`.

    Errors that Regard raises on purpose are written for the caller. Anything else, a fault of the engine,
    and one of the start, which is for whoever runs the server, such as a graph that is loaded when it is first
    needed and can't be, goes to the log with its trace under an id, and the caller gets the id.
    """
    telling = isinstance(error, ReportedError) or not isinstance(error, EngineError | ConfigurationError)
    if isinstance(error, RegardError) and telling:
        return error
    incident = uuid.uuid4().hex[:12]
    log.error("internal error", incident=incident, exc_info=error)
    reason = error.message if isinstance(error, EngineError) else "internal error"
    return ReportedError(f"{reason} (the server's log has it under {incident})")

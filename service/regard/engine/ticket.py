"""A request on its way through the engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from regard.engine.request import Event, GenerateRequest, Request, TokenEvent
from regard.errors import DeadlineExceededError, RegardError, RequestCancelledError

Listener = Callable[[Event | RegardError], None]


@dataclass(eq=False)
class Ticket:
    """A request, its reply channel, and when it came (in seconds of the engine's clock).

    It carries the caller's own reply channel, so that a caller who has gone is seen at the next
    step. The scheduler gives it a `number`, in the order of submission, and foresees how long an
    instance will work for it, `work_s`.
    """

    request: Request
    listener: Listener
    submitted_at: float
    number: int = field(default=0, init=False)
    work_s: float = field(default=0.0, init=False)
    cancelled: bool = field(default=False, init=False)
    done: bool = field(default=False, init=False)

    @property
    def length(self) -> int:
        """The number of source positions."""
        return self.request.source.length

    @property
    def width(self) -> int:
        """The number of rows that the request takes."""
        return self.request.options.width if isinstance(self.request, GenerateRequest) else 1

    def overdue(self, now: float) -> RegardError | None:
        """Return the error that this request must end with now, if any."""
        if self.cancelled:
            return RequestCancelledError("the request was cancelled")
        if self.request.deadline is not None and now >= self.request.deadline:
            return DeadlineExceededError("the deadline passed before the result was ready")
        return None

    def emit(self, event: TokenEvent) -> None:
        """Send one token to the caller."""
        self.listener(event)

    def finish(self, outcome: Event | RegardError) -> None:
        """Send the result or the error, once."""
        if not self.done:
            self.done = True
            self.listener(outcome)

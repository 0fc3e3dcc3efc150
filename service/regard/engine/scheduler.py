"""Who runs next: a bounded queue, padded-token budgets, deadlines. It decides and does nothing.

A `Ticket` is a request on its way: it carries the caller's own reply channel, so a caller that
has gone is seen when the next batch forms. The queue is first come, first served: a batch always
holds the request that has waited longest, and is filled with those nearest to it in length, so
that little is padded.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from regard.engine.request import Event, GenerateRequest, Request, TokenEvent
from regard.errors import (
    DeadlineExceededError,
    InvalidInputError,
    QueueFullError,
    RegardError,
    RequestCancelledError,
)

Listener = Callable[[Event | RegardError], None]
Clock = Callable[[], float]


@dataclass(eq=False)
class Ticket:
    """A request, its reply channel, and when it came (in seconds of the engine's clock)."""

    request: Request
    listener: Listener
    submitted_at: float
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


class Scheduler:
    """The queue of one model, shared by its instances. Safe to use from any thread."""

    def __init__(self, *, max_queue: int, max_rows: int, instances: int) -> None:
        self._max_queue = max_queue
        self._max_rows = max_rows
        self._instances = instances
        self._waiting: list[Ticket] = []
        self._running = 0
        self._lock = threading.Lock()

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """How many requests run, in all instances."""
        return self._running

    def submit(self, ticket: Ticket) -> None:
        """Append a request to the queue.

        Raises `QueueFullError` if it is full, and `InvalidInputError` for a request that takes
        more rows than an instance has.
        """
        if ticket.width > self._max_rows:
            raise InvalidInputError(
                f"generation asks for {ticket.width} beams or sequences; this server decodes at most {self._max_rows} "
                "side by side (engine.max_rows)",
                field="generation",
            )
        with self._lock:
            if len(self._waiting) >= self._max_queue:
                raise QueueFullError(f"{self._max_queue} requests wait already, the most allowed; try again later")
            self._waiting.append(ticket)

    def overdue(self, now: float) -> list[tuple[Ticket, RegardError]]:
        """Take every request out of the queue that was cancelled or whose deadline has passed."""
        with self._lock:
            ended = [(ticket, error) for ticket in self._waiting if (error := ticket.overdue(now)) is not None]
            if ended:
                gone = {ticket for ticket, _ in ended}
                self._waiting = [ticket for ticket in self._waiting if ticket not in gone]
            return ended

    def take(self, *, free: int, held: int, max_tokens: int) -> list[Ticket]:
        """Take the next batch out of the queue, longest first, and count it as running.

        `free` is how many rows the asking instance has left, `held` how many requests it has: no
        instance takes more than its share while others have room. The batch's longest length
        times its size is at most `max_tokens`, unless the batch is a single request. While the
        request that has waited longest takes more rows than are free, nothing passes it.
        """
        with self._lock:
            share = -(-(len(self._waiting) + self._running) // self._instances)
            if not self._waiting or share <= held:
                return []
            batch = _fill(self._waiting, share - held, free, max_tokens)
            taken = set(batch)
            self._waiting = [ticket for ticket in self._waiting if ticket not in taken]
            self._running += len(batch)
        return sorted(batch, key=lambda ticket: -ticket.length)

    def release(self, count: int = 1) -> None:
        """Count requests that were taken as ended."""
        with self._lock:
            self._running -= count

    def clear(self) -> list[Ticket]:
        """Take every waiting request out of the queue."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
            return waiting


class EncodeShare:
    """How much of an instance's time encoding may take while rows are decoding.

    Decoding earns time for encoding and encoding spends it. A batch may begin whenever nothing is
    owed, so rows that decode stand still for one batch at most, and over any longer while for no
    more than `share` of it.
    """

    def __init__(self, share: float) -> None:
        self._earned_per_second = share / (1 - share)
        self._credit_s = 0.0

    @property
    def owes(self) -> bool:
        """Whether the rows that decode are still owed time."""
        return self._credit_s < 0

    def encoded(self, seconds: float) -> None:
        """Spend the time of an encoder run."""
        self._credit_s -= seconds

    def decoded(self, seconds: float) -> None:
        """Earn for the time of a step; what is not spent is not saved up."""
        self._credit_s = min(self._credit_s + seconds * self._earned_per_second, 0.0)

    def forget(self) -> None:
        """Owe nothing: no row is decoding."""
        self._credit_s = 0.0


def _fill(waiting: list[Ticket], limit: int, free: int, max_tokens: int) -> list[Ticket]:
    """Return the first ticket and those nearest to it in length, within all limits; none if the first has no room."""
    first = waiting[0]
    if first.width > free:
        return []
    nearest = sorted(waiting[1:], key=lambda ticket: abs(ticket.length - first.length))
    batch, longest, rows = [first], first.length, first.width
    for ticket in nearest[: limit - 1]:
        longest = max(longest, ticket.length)
        rows += ticket.width
        if longest * (len(batch) + 1) > max_tokens or rows > free:
            break
        batch.append(ticket)
    return batch

"""Who runs next, and who is refused. It decides and does nothing.

Requests of a higher priority come first, and within a priority clients take turns (`FairQueue`). A
client of whose requests none was served for `priority_ageing_s` goes on with its next one a priority
higher, so nothing waits for ever. A batch always holds the request whose turn it is, and is filled
with those nearest to it in length among the next ones, so that little is padded.

A request is refused at once where it would wait in vain: if too many requests or too much work
waits, or if its deadline would pass behind what is served before it. So it is before its source is
read, too: what is being read is expected, and counts as waiting. A full queue keeps those whose turn
comes first, so that no client fills it for all.
"""

from __future__ import annotations

import math
import threading
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, count, islice, pairwise

from regard.config import EngineSettings
from regard.engine.fair_queue import FairQueue
from regard.engine.forecast import Forecast
from regard.engine.parts import part_ends
from regard.engine.request import Priority
from regard.engine.ticket import Ticket
from regard.errors import InvalidInputError, QueueFullError, RegardError

Clock = Callable[[], float]
Ended = list[tuple[Ticket, RegardError]]

WINDOW = 2
"""A batch is chosen from so many times the requests that it has room for, so none is passed over for long."""
LEAST_RETRY_S, MOST_RETRY_S = 0.1, 60.0


class Scheduler:
    """The queue of one model, shared by its instances. Safe to use from any thread."""

    def __init__(self, settings: EngineSettings, instances: int = 1) -> None:
        self._settings = settings
        self._instances = instances
        self._queues = {priority: FairQueue() for priority in sorted(Priority)}  # the most urgent first
        self._waiting: dict[Ticket, FairQueue] = {}
        self._deadlines: list[tuple[float, int, Ticket]] = []
        self._numbers = count()
        self._running = self._running_rows = self._expected = 0
        self._expected_s = 0.0
        self._forecast = Forecast(settings)
        self._now = 0.0
        self._lock = threading.Lock()

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """How many requests run, in all instances."""
        return self._running

    @property
    def running_rows(self) -> int:
        """How many rows the requests that run have, in all instances."""
        return self._running_rows

    def submit(self, ticket: Ticket) -> Ended:
        """Let a request wait for its turn; return those that must leave a full queue for it, and why.

        Raises `QueueFullError` for a request that would wait in vain, and `InvalidInputError` for
        one that takes more rows than an instance has.
        """
        self._check_width(ticket)
        with self._lock:
            ticket.number, ticket.work_s = next(self._numbers), self._forecast.work_s(ticket.request)
            self._check_deadline(ticket)
            leaving = self._room_for(ticket, len(self._waiting), self._work_s)
            for last, _ in leaving:
                self._leave(last)
            self._enter(ticket, self._queues[ticket.request.priority], ticket.submitted_at)
            if ticket.request.deadline is not None:
                insort(self._deadlines, (ticket.request.deadline, ticket.number, ticket))
            return leaving

    def expect(self, ticket: Ticket) -> None:
        """Count a request whose source is still being read as if it waited, until `unexpect`.

        The ticket holds what is foreseen of it. Raises what `submit` would raise once all that is
        expected waits.
        """
        self._check_width(ticket)
        with self._lock:
            ticket.work_s = self._forecast.work_s(ticket.request)
            self._check_deadline(ticket)
            self._room_for(ticket, len(self._waiting) + self._expected, self._work_s + self._expected_s)
            self._expected += 1
            self._expected_s += ticket.work_s

    def unexpect(self, ticket: Ticket) -> None:
        """Count a request no longer that was expected: its source is read, or can't be."""
        with self._lock:
            self._expected -= 1
            self._expected_s = self._expected_s - ticket.work_s if self._expected else 0.0

    def cancel(self, ticket: Ticket) -> bool:
        """Note that a request's caller has gone; return whether it waited, and so has left already."""
        with self._lock:
            ticket.cancelled = True
            waited = ticket in self._waiting
            if waited:
                self._leave(ticket)
            return waited

    def elapse(self, now: float) -> Ended:
        """Let time pass: return those that must leave the queue by now, and raise who was passed over for long."""
        with self._lock:
            self._now = now
            ended: Ended = []
            if not self._waiting:
                return ended
            while self._deadlines and self._deadlines[0][0] <= now:
                ticket = self._deadlines[0][2]
                self._leave(ticket)
                if error := ticket.overdue(now):
                    ended.append((ticket, error))
            for higher, lower in pairwise(self._queues.values()):
                while (raised := lower.passed_over_since(now - self._settings.priority_ageing_s)) is not None:
                    lower.promote(raised, now)
                    self._enter(raised, higher, now)
            return ended

    def take(self, *, free: int, held: int, max_tokens: int) -> list[Ticket]:
        """Take the next batch out of the queue, longest first, and count it as running.

        `free` is how many rows the asking instance has left, `held` how many it has taken: no instance
        goes on taking once it has its share, so that others have work. The batch's longest length
        times its size is at most `max_tokens`, unless the batch is a single request. While the
        request whose turn it is takes more rows than are free, nothing passes it.
        """
        with self._lock:
            if not self._waiting or free < 1:
                return []
            share = -(-(self._waiting_rows + self._running_rows) // self._instances)
            if share <= held:
                return []
            wanted = min(share - held, free)
            batch = _fill(self._next(wanted), wanted, free, max_tokens)
            for ticket in batch:
                self._waiting[ticket].serve(ticket, self._now)
                self._forget(ticket)
            self._running += len(batch)
            self._running_rows += sum(ticket.width for ticket in batch)
        return sorted(batch, key=lambda ticket: -ticket.length)

    def parts(self, batch: Sequence[Ticket]) -> list[Sequence[Ticket]]:
        """Cut a batch, longest first, into those that are read one after the other, if that takes less time."""
        with self._lock:
            overhead = self._forecast.read_overhead
        ends = part_ends([ticket.length for ticket in batch], overhead)
        return [batch[begin:end] for begin, end in pairwise([0, *ends])]

    def ended(self, ticket: Ticket, steps: int | None = None) -> None:
        """Count a request that was taken as ended; `steps` is how many it took, if it came to its end."""
        with self._lock:
            self._running -= 1
            self._running_rows -= ticket.width
            if steps is not None:
                self._forecast.saw_output(ticket.request, steps)

    def read(self, tokens: int, seconds: float) -> None:
        """Note the time of a run of the encoder, or of a classifier, over padded tokens."""
        with self._lock:
            self._forecast.saw_read(tokens, seconds)

    def stepped(self, rows: int, seconds: float) -> None:
        """Note the time of one step of `rows` rows."""
        with self._lock:
            self._forecast.saw_step(rows, seconds)

    def _enter(self, ticket: Ticket, queue: FairQueue, now: float) -> None:
        queue.add(ticket, now)
        self._waiting[ticket] = queue

    def _leave(self, ticket: Ticket) -> None:
        self._waiting[ticket].drop(ticket)
        self._forget(ticket)

    def _forget(self, ticket: Ticket) -> None:
        del self._waiting[ticket]
        if ticket.request.deadline is not None:
            del self._deadlines[bisect_left(self._deadlines, (ticket.request.deadline, ticket.number, ticket))]

    def _next(self, wanted: int) -> list[Ticket]:
        """Return what a batch of `wanted` rows is chosen from: whose turn it is, then the nearest in length."""
        length = next(chain(*self._queues.values())).length
        window: list[Ticket] = []
        for queue in self._queues.values():
            near = sorted(islice(queue, WINDOW * wanted - len(window)), key=lambda ticket: abs(ticket.length - length))
            window += near
        return window

    def _check_width(self, ticket: Ticket) -> None:
        if ticket.width > self._settings.max_rows:
            raise InvalidInputError(
                f"generation asks for {ticket.width} beams or sequences; this server decodes at most "
                f"{self._settings.max_rows} side by side (engine.max_rows)",
                field="generation",
            )

    def _check_deadline(self, ticket: Ticket) -> None:
        """Raise `QueueFullError` if a deadline would pass behind what is served before it.

        What can start at once may try: nobody knows before how long its output will be.
        """
        deadline, wait_s = ticket.request.deadline, self._wait_s(ticket)
        if deadline is None or wait_s == 0 or not self._forecast.measured(ticket.request):
            return
        late_s = ticket.submitted_at + wait_s + self._forecast.duration_s(ticket.request) - deadline
        if late_s > 0:
            raise _refusal(f"what is served before it takes about {wait_s:.2g} s, too long for its deadline", late_s)

    def _wait_s(self, ticket: Ticket) -> float:
        """Return about how long a request would wait for its place.

        Rows that are free take their share of what is served before it at once. The rest waits for
        others to end, and as long as there is work, as much ends as begins.
        """
        free = self._settings.max_rows * self._instances - self._running_rows
        rows = self._waiting_rows
        if rows + ticket.width <= free:
            return 0.0
        priority, client = ticket.request.priority, ticket.request.client
        urgent_s = sum(queue.work_s for level, queue in self._queues.items() if level < priority)
        before_s = urgent_s + self._queues[priority].work_before(client)
        begun_s = self._work_s * max(free, 0) / rows if rows else 0.0
        return max(before_s - begun_s, 0.0) / self._instances

    @property
    def _waiting_rows(self) -> int:
        return sum(queue.rows for queue in self._queues.values())

    @property
    def _work_s(self) -> float:
        return sum(queue.work_s for queue in self._queues.values())

    def _room_for(self, ticket: Ticket, waiting: int, work_s: float) -> Ended:
        """Return what a queue of so many, with so much work, can't hold beside a request, and why.

        It is those whose turn comes last, and after the request's own. Raises `QueueFullError` if they are too few.
        """
        spare_s = math.inf
        if self._forecast.measured(ticket.request):
            spare_s = self._settings.max_queue_s * self._instances - work_s - ticket.work_s
        later = self._later_than(ticket)
        leaving: Ended = []
        while (problem := self._full(waiting - len(leaving), spare_s)) is not None:
            error = _refusal(problem, work_s / self._instances / 2)
            last = next(later, None)
            if last is None:
                raise error
            leaving.append((last, error))
            spare_s += last.work_s
        return leaving

    def _full(self, waiting: int, spare_s: float) -> str | None:
        """Return why one more can't wait, if so. However much work a request is, it may wait alone."""
        if waiting >= self._settings.max_queue:
            return f"{waiting} requests wait already, the most allowed"
        if waiting and spare_s < 0:
            return f"the requests that wait take {self._settings.max_queue_s:g} s already, the most allowed"
        return None

    def _later_than(self, ticket: Ticket) -> Iterator[Ticket]:
        """Go through the requests that would be served after a new one, the last first."""
        priority = ticket.request.priority
        for level, queue in reversed(self._queues.items()):
            if level > priority:
                yield from reversed(queue)
        yield from self._queues[priority].later_than(ticket.request.client)


def _refusal(problem: str, retry_after_s: float) -> QueueFullError:
    after_s = min(max(retry_after_s, LEAST_RETRY_S), MOST_RETRY_S)
    return QueueFullError(f"{problem}; try again in about {after_s:.2g} s", retry_after_s=after_s)


def _fill(window: list[Ticket], wanted: int, free: int, max_tokens: int) -> list[Ticket]:
    """Return the first of the window and those that follow until `wanted` rows are taken, the last one whole.

    All are within the other limits; there are none if the first has no room.
    """
    batch: list[Ticket] = []
    longest = rows = 0
    for ticket in window:
        longest = max(longest, ticket.length)
        taken, rows = rows, rows + ticket.width
        if taken >= wanted or rows > free or (batch and longest * (len(batch) + 1) > max_tokens):
            break
        batch.append(ticket)
    return batch

"""Who runs next."""

from __future__ import annotations

import numpy as np
import pytest

from regard.engine.request import ClassifyRequest
from regard.engine.scheduler import Scheduler, Ticket
from regard.engine.source import Tokens
from regard.errors import DeadlineExceededError, QueueFullError


def ticket(length: int, deadline: float | None = None) -> Ticket:
    """Return a request of `length` tokens that nobody listens to."""
    return Ticket(ClassifyRequest(Tokens(np.zeros(length, np.int64)), deadline=deadline), lambda _: None, 0.0)


def filled(*lengths: int, instances: int = 1) -> tuple[Scheduler, list[Ticket]]:
    """Return a scheduler with a request of each length waiting."""
    scheduler = Scheduler(max_queue=100, max_rows=64, instances=instances)
    tickets = [ticket(length) for length in lengths]
    for waiting in tickets:
        scheduler.submit(waiting)
    return scheduler, tickets


def test_a_batch_holds_the_first_and_those_nearest_to_it_in_length() -> None:
    """With room for three, the long one in between is left for a batch of its own kind."""
    scheduler, _ = filled(5, 50, 6, 4)
    assert [t.length for t in scheduler.take(free=3, held=0, max_tokens=1000)] == [6, 5, 4]
    assert [t.length for t in scheduler.take(free=3, held=0, max_tokens=1000)] == [50]


def test_the_budget_counts_padded_tokens() -> None:
    """Longest times count stays within the budget."""
    scheduler, _ = filled(10, 10, 10, 10)
    assert len(scheduler.take(free=9, held=0, max_tokens=35)) == 3


def test_a_request_over_the_budget_runs_alone() -> None:
    """A request longer than the whole budget is not starved."""
    scheduler, _ = filled(500, 1)
    assert [t.length for t in scheduler.take(free=9, held=0, max_tokens=100)] == [500]


def test_an_instance_takes_no_more_than_its_share() -> None:
    """Of eight requests and two instances, each takes four; one that already has its share takes none."""
    scheduler, _ = filled(*[5] * 8, instances=2)
    assert len(scheduler.take(free=8, held=0, max_tokens=1000)) == 4
    assert scheduler.take(free=4, held=4, max_tokens=1000) == []
    assert len(scheduler.take(free=8, held=0, max_tokens=1000)) == 4


def test_overdue_requests_leave_the_queue() -> None:
    """Those that were cancelled or came too late are taken out, with the reason; the rest stay."""
    scheduler = Scheduler(max_queue=10, max_rows=64, instances=1)
    late, kept = ticket(3, deadline=1.0), ticket(3, deadline=9.0)
    scheduler.submit(late)
    scheduler.submit(kept)
    ((gone, error),) = scheduler.overdue(1.0)
    assert gone is late
    assert isinstance(error, DeadlineExceededError)
    assert scheduler.take(free=5, held=0, max_tokens=100) == [kept]


def test_the_queue_is_bounded() -> None:
    """What is running doesn't count against the queue; what waits does."""
    scheduler = Scheduler(max_queue=2, max_rows=64, instances=1)
    scheduler.submit(ticket(1))
    scheduler.submit(ticket(1))
    with pytest.raises(QueueFullError):
        scheduler.submit(ticket(1))
    scheduler.take(free=1, held=0, max_tokens=10)
    scheduler.submit(ticket(1))
    assert (scheduler.waiting, scheduler.running) == (2, 1)

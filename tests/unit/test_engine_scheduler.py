"""Who runs next, and who is refused."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from regard.config import EngineSettings
from regard.engine.request import ClassifyRequest, GenerateRequest, Priority
from regard.engine.scheduler import Scheduler
from regard.engine.search.options import GenerationOptions, scoring
from regard.engine.source import Tokens
from regard.engine.ticket import Ticket
from regard.errors import DeadlineExceededError, QueueFullError


def ticket(length: int = 1, at: float = 0.0, **fields: Any) -> Ticket:
    """Return a request of `length` tokens, submitted at a time, that nobody listens to."""
    return Ticket(ClassifyRequest(Tokens(np.zeros(length, np.int64)), **fields), lambda _: None, at)


def generation(length: int, **options: Any) -> Ticket:
    """Return a request to generate."""
    searched = GenerationOptions(**{"max_new_tokens": 100} | options)
    return Ticket(GenerateRequest(Tokens(np.zeros(length, np.int64)), searched), lambda _: None, 0.0)


def scheduler_of(*tickets: Ticket, instances: int = 1, **settings: Any) -> Scheduler:
    """Return a scheduler with requests waiting."""
    scheduler = Scheduler(EngineSettings(**settings), instances)
    for one in tickets:
        assert scheduler.submit(one) == []
    return scheduler


def take(scheduler: Scheduler, free: int = 1, held: int = 0, max_tokens: int = 10_000) -> list[Ticket]:
    """Take a batch, by default of a single request."""
    return scheduler.take(free=free, held=held, max_tokens=max_tokens)


def order(scheduler: Scheduler) -> list[str]:
    """Take one request after the other and return their clients."""
    return [batch[0].request.client for _ in range(scheduler.waiting) if (batch := take(scheduler))]


def test_a_batch_holds_the_first_and_those_nearest_to_it_in_length() -> None:
    """With room for three, the long one in between is left for a batch of its own kind."""
    scheduler = scheduler_of(*(ticket(length) for length in (5, 50, 6, 4)))
    assert [t.length for t in take(scheduler, free=3)] == [6, 5, 4]
    assert [t.length for t in take(scheduler, free=3)] == [50]


def test_a_batch_is_chosen_among_the_next_only() -> None:
    """With room for two, the fifth is not looked at, however near it is in length."""
    scheduler = scheduler_of(*(ticket(length) for length in (5, 50, 60, 70, 5)))
    assert [t.length for t in take(scheduler, free=2)] == [50, 5]


def test_the_budget_counts_padded_tokens() -> None:
    """Longest times count stays within the budget."""
    scheduler = scheduler_of(*(ticket(10) for _ in range(4)))
    assert len(take(scheduler, free=9, max_tokens=35)) == 3


def test_a_request_over_the_budget_runs_alone() -> None:
    """A request longer than the whole budget is not starved."""
    scheduler = scheduler_of(ticket(500), ticket(1))
    assert [t.length for t in take(scheduler, free=9, max_tokens=100)] == [500]


def test_an_instance_takes_no_more_than_its_share() -> None:
    """Of eight requests and two instances, each takes four; one that already has its share takes none."""
    scheduler = scheduler_of(*(ticket(5) for _ in range(8)), instances=2)
    assert len(take(scheduler, free=8)) == 4
    assert take(scheduler, free=4, held=4) == []
    assert len(take(scheduler, free=8)) == 4


def test_shares_are_of_rows() -> None:
    """Of requests of four rows each has half; beside one of 64 rows, all of one row are the other instance's."""
    scheduler = scheduler_of(*(generation(5, num_beams=4) for _ in range(8)), instances=2)
    assert len(take(scheduler, free=64)) == 4
    assert take(scheduler, free=48, held=16) == []
    assert len(take(scheduler, free=64)) == 4

    wide = generation(5, num_beams=64)
    scheduler = scheduler_of(wide, instances=2)
    assert take(scheduler, free=64) == [wide]
    for _ in range(9):
        scheduler.submit(generation(5))
    assert take(scheduler, free=0, held=64) == []
    assert len(take(scheduler, free=64)) == 9


def test_overdue_requests_leave_the_queue() -> None:
    """One that came too late is taken out with the reason, one whose caller has gone without; the rest stay."""
    late, gone, kept = ticket(deadline=1.0), ticket(deadline=0.5), ticket(deadline=9.0)
    scheduler = scheduler_of(late, gone, kept)
    assert scheduler.cancel(gone)
    ((ended, error),) = scheduler.elapse(1.0)
    assert ended is late
    assert isinstance(error, DeadlineExceededError)
    assert take(scheduler, free=5) == [kept]
    assert not scheduler.cancel(kept) and kept.cancelled


def test_the_queue_is_bounded() -> None:
    """What is running doesn't count against the queue; what waits does."""
    scheduler = scheduler_of(ticket(), ticket(), max_queue=2)
    with pytest.raises(
        QueueFullError, match=r"2 requests wait already, the most allowed; try again in about \d"
    ) as full:
        scheduler.submit(ticket())
    assert full.value.retry_after_s is not None and full.value.retry_after_s > 0
    take(scheduler)
    scheduler.submit(ticket())
    assert (scheduler.waiting, scheduler.running) == (2, 1)


def test_what_is_expected_counts_as_waiting() -> None:
    """One waits, one is being read: a queue of two is full until the second is let go."""
    scheduler, expected = scheduler_of(ticket(), max_queue=2), ticket()
    scheduler.expect(expected)
    with pytest.raises(QueueFullError, match="2 requests wait already"):
        scheduler.expect(ticket())
    scheduler.unexpect(expected)
    scheduler.expect(ticket())
    assert scheduler.waiting == 1


def test_what_is_expected_drives_nobody_out() -> None:
    """In a full queue there is room for another client's request; who leaves for it does so once it comes."""
    scheduler = scheduler_of(*(ticket(client="many") for _ in range(3)), max_queue=3)
    few = ticket(client="few")
    scheduler.expect(few)
    assert scheduler.waiting == 3
    scheduler.unexpect(few)
    ((left, _),) = scheduler.submit(few)
    assert left.request.client == "many"


def test_work_that_is_expected_counts_too() -> None:
    """Where a second of work may wait, two requests of most of a second each are one too many, read or not."""
    scheduler = scheduler_of(max_queue_s=1.0)
    scheduler.read(1024, 10.24)
    first = ticket(80)
    scheduler.expect(first)
    with pytest.raises(QueueFullError, match="take 1 s already"):
        scheduler.expect(ticket(80))
    scheduler.unexpect(first)
    scheduler.expect(ticket(80))


def test_a_client_with_a_thousand_requests_waits_for_them_and_another_does_not() -> None:
    """What comes after a thousand requests of one client is served next, and then in turns."""
    scheduler = scheduler_of(*(ticket(client="many") for _ in range(1000)), max_queue=2000)
    for _ in range(10):
        take(scheduler)
    for _ in range(3):
        scheduler.submit(ticket(client="few"))
    served = order(scheduler)
    assert served.count("few") == 3 and "few" not in served[7:]


def test_clients_take_turns_by_the_work_they_ask_for() -> None:
    """Of one whose requests are four times as long, a fourth as many are served."""
    long = [ticket(40, client="long") for _ in range(50)]
    short = [ticket(10, client="short") for _ in range(50)]
    served = order(scheduler_of(*long, *short))
    assert served[:50].count("long") == pytest.approx(10, abs=1)


def test_a_client_is_not_served_for_having_been_away() -> None:
    """One that comes late has its turns from now on, and can't make up for what it did not ask for."""
    scheduler = scheduler_of(*(ticket(client="early") for _ in range(100)))
    for _ in range(50):
        take(scheduler)
    for _ in range(50):
        scheduler.submit(ticket(client="late"))
    assert order(scheduler)[:40].count("late") == pytest.approx(20, abs=1)


def test_new_clients_without_end_do_not_starve_those_who_wait() -> None:
    """A client's tenth request is served although, at every step, another client comes with its first."""
    waiting = [ticket(client="patient") for _ in range(10)]
    scheduler = scheduler_of(*waiting)
    served: list[Ticket] = []
    for number in range(200):
        scheduler.submit(ticket(client=f"new-{number}"))
        served += take(scheduler)
    assert set(waiting) <= set(served)


def test_accounts_of_clients_that_have_gone_are_closed() -> None:
    """Ten thousand clients, of whom only a few wait at any time, leave few traces."""
    scheduler = scheduler_of(ticket(client="patient"), ticket(client="patient"))
    for number in range(10_000):
        scheduler.submit(ticket(client=f"new-{number}"))
        scheduler.submit(ticket(client=f"new-{number}", priority=Priority.LOW))
        take(scheduler, free=2)
        assert sum(len(queue._accounts) for queue in scheduler._queues.values()) < 300
    assert scheduler._deadlines == []


def test_urgent_requests_come_first_and_idle_ones_last() -> None:
    """Within a priority, it is first come, first served for one client."""
    named = {"low": Priority.LOW, "first": Priority.NORMAL, "second": Priority.NORMAL, "high": Priority.HIGH}
    waiting = [ticket(client=name, priority=priority) for name, priority in named.items()]
    assert order(scheduler_of(*waiting)) == ["high", "first", "second", "low"]


def test_waiting_raises_a_client_that_is_passed_over() -> None:
    """While urgent requests keep coming, every ageing time one request of each other client is served all the same."""
    scheduler = scheduler_of(*(ticket(client="idle", priority=Priority.LOW) for _ in range(9)), priority_ageing_s=10)
    served: list[str] = []
    for second in range(100):
        scheduler.elapse(second)
        scheduler.submit(ticket(client=f"urgent-{second % 7}", at=second, priority=Priority.HIGH))
        served += [one.request.client for one in take(scheduler)]
    assert served.count("idle") == pytest.approx(8, abs=1)
    assert "idle" not in served[:20]


def test_a_long_queue_of_ones_own_is_not_being_passed_over() -> None:
    """A client that has waited long, but behind itself, doesn't come before another for it."""
    scheduler = scheduler_of(*(ticket(client="many") for _ in range(50)), priority_ageing_s=10)
    for second in range(40):
        scheduler.elapse(second)
        take(scheduler)
    scheduler.submit(ticket(client="other", at=40))
    scheduler.submit(ticket(client="other", at=40))
    scheduler.elapse(41)
    assert "other" not in order(scheduler)[4:]


def test_a_full_queue_makes_room_for_those_whose_turn_comes_first() -> None:
    """Of a client that has filled the queue, the last request leaves for another client's, not for its own."""
    waiting = [ticket(client="many") for _ in range(3)]
    scheduler = scheduler_of(*waiting, max_queue=3)
    with pytest.raises(QueueFullError):
        scheduler.submit(ticket(client="many"))
    ((displaced, error),) = scheduler.submit(ticket(client="other"))
    assert displaced is waiting[-1] and isinstance(error, QueueFullError)
    ((displaced, _),) = scheduler.submit(ticket(client="many", priority=Priority.HIGH))
    assert displaced is waiting[-2]
    assert scheduler.waiting == 3


def test_the_work_that_waits_is_bounded() -> None:
    """At a second a token, ten tokens may wait; a request that is alone may be any work."""
    scheduler = scheduler_of(max_queue_s=10)
    scheduler.read(1024, 1024.0)
    scheduler.submit(ticket(500))
    with pytest.raises(QueueFullError, match="take 10 s already"):
        scheduler.submit(ticket(1))
    take(scheduler)
    scheduler.submit(ticket(6))
    scheduler.submit(ticket(4))
    with pytest.raises(QueueFullError):
        scheduler.submit(ticket(1))
    ((displaced, _),) = scheduler.submit(ticket(1, client="other"))
    assert displaced.length == 4


def test_a_deadline_that_would_pass_in_the_queue_is_refused_at_once() -> None:
    """Behind twenty seconds of work, fifteen are too few and thirty enough; another client's turn comes first."""
    scheduler = scheduler_of(max_rows=1)
    scheduler.read(1024, 1024.0)
    for _ in range(4):
        scheduler.submit(ticket(5))
    take(scheduler)
    scheduler.submit(ticket(5))
    with pytest.raises(QueueFullError, match="too long for its deadline") as refused:
        scheduler.submit(ticket(5, deadline=15.0))
    assert refused.value.retry_after_s == pytest.approx(10, rel=0.5)
    scheduler.submit(ticket(5, deadline=30.0))
    scheduler.submit(ticket(5, deadline=15.0, client="other"))


def test_a_request_that_can_start_at_once_may_try_whatever_its_deadline() -> None:
    """How long an output will be is a guess: with a free row, nobody is refused for it."""
    scheduler = scheduler_of(max_rows=2)
    scheduler.read(1024, 1024.0)
    scheduler.submit(ticket(100))
    take(scheduler)
    assert scheduler.submit(ticket(100, deadline=1.0)) == []


def test_work_is_foreseen_from_the_steps_that_others_took() -> None:
    """Rows, the pace of steps, and tokens for each source token make the work of a generation."""
    scheduler = scheduler_of(max_rows=10)
    for rows in (1, 5, 10) * 5:
        scheduler.stepped(rows, 0.01 + 0.001 * rows)
    done = generation(10)
    scheduler.submit(done)
    take(scheduler)
    scheduler.ended(done, steps=20)
    greedy, beams, short = generation(10), generation(10, num_beams=4), generation(10, max_new_tokens=5)
    for one in (greedy, beams, short):
        scheduler.submit(one)
    step_s = 0.02 / 10
    assert greedy.work_s == pytest.approx(20 * step_s, rel=0.1)
    assert beams.work_s == pytest.approx(80 * step_s, rel=0.1)
    assert short.work_s == pytest.approx(5 * step_s, rel=0.3)


def test_outputs_that_are_given_teach_nothing_of_how_long_others_are() -> None:
    """After many scored outputs of ninety tokens, a text of ten is still expected to take as many steps as tokens."""
    scheduler = scheduler_of(max_rows=1)
    scheduler.stepped(1, 1.0)
    for _ in range(100):
        scored = generation(10, **asdict(scoring(range(90))))
        scheduler.submit(scored)
        scheduler.ended(*take(scheduler), steps=90)
    searched = generation(10)
    scheduler.submit(searched)
    assert searched.work_s == pytest.approx(10, rel=0.1)

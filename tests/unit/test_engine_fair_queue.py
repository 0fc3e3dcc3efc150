"""Clients take turns by the work that they ask for."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from regard.engine.fair_queue import FairQueue
from regard.engine.request import ClassifyRequest
from regard.engine.source import Tokens
from regard.engine.ticket import Ticket

WORKS = st.lists(st.integers(1, 50), min_size=1, max_size=20)


def add(queue: FairQueue, client: str, works: list[int], number: int | None = None) -> None:
    """Let a client send requests of so much work each, numbered from `number` on, or from how many wait."""
    for at, work in enumerate(works, len(list(queue)) if number is None else number):
        ticket = Ticket(ClassifyRequest(Tokens(np.zeros(1, np.int64)), client=client), lambda _: None, 0.0)
        ticket.number, ticket.work_s = at, float(work)
        queue.add(ticket, 0.0)


def served(queue: FairQueue) -> Iterator[Ticket]:
    """Serve all that waits, one after the other."""
    while queue.rows:
        ticket = next(iter(queue))
        queue.serve(ticket, 0.0)
        yield ticket


@given(st.dictionaries(st.sampled_from("abcd"), WORKS, min_size=2))
def test_of_clients_that_wait_none_is_given_more_than_a_request_or_two_beyond_another(
    asked: dict[str, list[int]],
) -> None:
    """As long as two have requests in the queue, the work given to them differs by their largest at most."""
    queue = FairQueue()
    for client, works in asked.items():
        add(queue, client, works)
    given_s = dict.fromkeys(asked, 0.0)
    left = {client: len(works) for client, works in asked.items()}
    while queue.rows:
        ticket = next(iter(queue))
        queue.serve(ticket, 0.0)
        client = ticket.request.client
        given_s[client] += ticket.work_s
        left[client] -= 1
        for one in asked:
            for other in asked:
                if left[one] and left[other]:
                    assert abs(given_s[one] - given_s[other]) <= max(asked[one]) + max(asked[other])


def test_what_is_left_of_many_requests_has_the_turn_of_the_first() -> None:
    """A client that takes all but the last of its requests back waits no longer than one that sent only that."""
    queue = FairQueue()
    add(queue, "many", [1] * 21)
    for ticket in list(queue)[:20]:
        queue.drop(ticket)
    add(queue, "other", [1] * 5, 21)
    add(queue, "many", [1], 26)
    order = [ticket.request.client for ticket in served(queue)]
    assert order == ["many", "other", "other", "many", "other", "other", "other"]


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "drop", "serve"]), st.integers(0, 50)), max_size=60))
def test_a_client_is_served_in_the_order_in_which_it_asked(events: list[tuple[str, int]]) -> None:
    """Whatever comes between, whatever is dropped, and whoever else is served; nothing that waits has missed a turn."""
    queue, number, last = FairQueue(), 0, dict.fromkeys("ab", -1)

    def serve() -> None:
        ticket = next(iter(queue))
        queue.serve(ticket, 0.0)
        assert ticket.number > last[ticket.request.client]
        last[ticket.request.client] = ticket.number

    for event, size in events:
        waiting = list(queue)
        if event in last:
            add(queue, event, [size + 1], number)
            number += 1
        elif waiting and event == "drop":
            queue.drop(waiting[size % len(waiting)])
        elif waiting:
            serve()
    while queue.rows:
        serve()
    assert queue.work_s == 0


@given(WORKS, WORKS)
def test_the_work_before_a_request_is_foreseen(own: list[int], others: list[int]) -> None:
    """One that comes new has none before it; one that is behind itself and another has twice its own, or all."""
    queue = FairQueue()
    add(queue, "own", own)
    assert (queue.work_before("new"), queue.work_before("own")) == (0, sum(own))
    add(queue, "other", others)
    assert queue.work_before("own") == min(2 * sum(own), sum(own) + sum(others))

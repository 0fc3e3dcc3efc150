"""Clients take turns by the work that they ask for."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from regard.engine.fair_queue import FairQueue
from regard.engine.request import ClassifyRequest
from regard.engine.source import Tokens
from regard.engine.ticket import Ticket

WORKS = st.lists(st.integers(1, 50), min_size=1, max_size=20)


def add(queue: FairQueue, client: str, works: list[int]) -> None:
    """Let a client send requests of so much work each."""
    for work in works:
        ticket = Ticket(ClassifyRequest(Tokens(np.zeros(1, np.int64)), client=client), lambda _: None, 0.0)
        ticket.number, ticket.work_s = len(list(queue)), float(work)
        queue.add(ticket, 0.0)


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


@given(WORKS, WORKS)
def test_the_work_before_a_request_is_foreseen(own: list[int], others: list[int]) -> None:
    """One that comes new has none before it; one that is behind itself and another has twice its own, or all."""
    queue = FairQueue()
    add(queue, "own", own)
    assert (queue.work_before("new"), queue.work_before("own")) == (0, sum(own))
    add(queue, "other", others)
    assert queue.work_before("own") == min(2 * sum(own), sum(own) + sum(others))

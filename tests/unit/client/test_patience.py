"""Clients that go on asking a server that has no room."""

from __future__ import annotations

import grpc
import pytest

from regard.client import AsyncClient, Client, Failure
from regard.client.patience import LONGEST_WAIT_S, Patience, refused_runs

FULL = Failure(8, "no room", retry_after_s=0.5)
TOO_LARGE = Failure(8, "the answer is too large")
TEXTS = ["a", "b", "c", "bad", "d"]


def test_waits_are_longer_each_time_up_to_a_bound() -> None:
    """What the server says, the longest of it, and a part of an interval that doubles."""
    later = Failure(8, "no room", retry_after_s=2.0)
    patience = Patience(1000.0, clock=lambda: 0.0, draw=lambda: 0.5)
    waits = [patience.wait_s([FULL, "answer", later]) for _ in range(9)]
    assert waits == pytest.approx([2 + min(0.1 * 2**time, LONGEST_WAIT_S) / 2 for time in range(9)])


def test_it_ends() -> None:
    """Nobody waits for a time to send again at which it would be over."""
    times = iter([100.0, 100.0, 100.5])
    patience = Patience(1.0, clock=lambda: next(times), draw=lambda: 0.0)
    assert patience.wait_s([FULL]) == 0.5
    assert patience.wait_s([FULL]) is None


@pytest.mark.parametrize("answers", [[], ["answer"], [TOO_LARGE, Failure(3, "bad", "texts[0]")]])
def test_what_is_no_refusal_is_not_sent_again(answers: list[object]) -> None:
    """It would fail once more."""
    assert Patience(1000.0).wait_s(answers) is None
    assert refused_runs(answers) == []


def test_runs_are_found_wherever_they_stand() -> None:
    """At either end and between."""
    assert refused_runs([FULL, FULL, "a", TOO_LARGE, FULL, "b", FULL]) == [slice(0, 2), slice(4, 5), slice(6, 7)]


def check(answers: list[object]) -> None:
    """Hold the answers to `TEXTS` to be where they belong; the bad one keeps its place in what the caller gave."""
    *_, failure, _ = answers
    assert [getattr(answer, "text", "") for answer in answers] == ["A", "B", "C", "", "D"]
    assert isinstance(failure, Failure) and (failure.code_name, failure.field) == ("INVALID_ARGUMENT", "texts[3]")


def test_what_there_was_no_room_for_is_sent_again(server) -> None:
    """Of a request's inputs those alone, the others' answers are kept."""
    server.full_for = ["b", "bad", "d"]
    with Client(server.target, patience_s=10) as client:
        check(client.translate_many(TEXTS))
    assert [list(request.texts) for request in server.requests] == [TEXTS, ["b"], ["bad", "d"]]


async def test_so_it_is_by_the_async_client(server) -> None:
    """Whole requests as well, and several times."""
    server.refusals, server.pushback_ms = [grpc.StatusCode.RESOURCE_EXHAUSTED] * 3, "10"
    server.full_for = ["b", "b", "d"]
    async with AsyncClient(server.target, patience_s=10, inputs_per_request=2) as client:
        check(await client.translate_many(TEXTS))
    sent = sorted(list(request.texts) for request in server.requests)
    assert sent == sorted([["a", "b"], ["a", "b"], ["b"], ["b"], ["c", "bad"], ["c", "bad"], ["d"], ["d"], ["d"]])


def test_threads_send_whole_requests_again(server) -> None:
    """In the order in which their answers are given."""
    server.refusals, server.pushback_ms = [grpc.StatusCode.RESOURCE_EXHAUSTED] * 3, "10"
    with Client(server.target, patience_s=10, inputs_per_request=2, requests_in_flight=1) as client:
        check(client.translate_many(TEXTS))
    assert [list(request.texts) for request in server.requests] == [TEXTS[:2]] * 4 + [TEXTS[2:4], TEXTS[4:]]


def test_clients_are_impatient_unless_they_are_told_to_wait(server) -> None:
    """An application that answers somebody does something else then."""
    server.full_for = ["b"]
    with Client(server.target) as client:
        answers = client.translate_many(["a", "b"])
    assert isinstance(answers[1], Failure) and answers[1].code_name == "RESOURCE_EXHAUSTED"
    assert len(server.requests) == 1

"""Outcomes on their way to event loops, of which these only count how often they are woken."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from regard.engine.request import TokenEvent
from regard.outbox import Outbox


class Loop:
    """An event loop that runs nothing until it is told to."""

    def __init__(self, *, closed: bool = False) -> None:
        self.closed = closed
        self.woken: list[Callable[[], None]] = []
        self.heard: list[int] = []

    def call_soon_threadsafe(self, function: Callable[..., None], *arguments: object) -> None:
        """Note the call."""
        if self.closed:
            raise RuntimeError("Event loop is closed")
        self.woken.append(lambda: function(*arguments))

    def run(self) -> None:
        """Do what was called."""
        for function in self.woken:
            function()


def put(outbox: Outbox, loop: Loop, *token_ids: int) -> None:
    """Put tokens for one of a loop's callers."""
    for token_id in token_ids:
        outbox.put(
            cast(asyncio.AbstractEventLoop, loop),
            lambda event: loop.heard.append(cast(Any, event).token_id),
            TokenEvent(token_id, -1.0),
        )


def test_everything_put_since_the_last_post_wakes_a_loop_once() -> None:
    """And is heard in the order in which it was put."""
    outbox, loop = Outbox(), Loop()
    put(outbox, loop, 1, 2, 3)
    assert loop.woken == []
    outbox.post()
    put(outbox, loop, 4)
    outbox.post()
    assert len(loop.woken) == 2
    loop.run()
    assert loop.heard == [1, 2, 3, 4]


def test_each_loop_has_its_own() -> None:
    """Callers of different event loops don't hear each other's."""
    outbox, one, other = Outbox(), Loop(), Loop()
    put(outbox, one, 1)
    put(outbox, other, 2)
    put(outbox, one, 3)
    outbox.post()
    for loop in (one, other):
        loop.run()
    assert (one.heard, other.heard) == ([1, 3], [2])


def test_where_nothing_waits_nobody_is_woken() -> None:
    """A step that tells nobody anything costs no loop anything."""
    outbox, loop = Outbox(), Loop()
    put(outbox, loop, 1)
    outbox.post()
    outbox.post()
    assert len(loop.woken) == 1


def test_a_closed_loop_keeps_nothing_from_the_others() -> None:
    """It has nobody to tell, now or later."""
    outbox, closed, loop = Outbox(), Loop(closed=True), Loop()
    put(outbox, closed, 1)
    put(outbox, loop, 2)
    outbox.post()
    closed.closed = False
    outbox.post()
    loop.run()
    assert (closed.woken, loop.heard) == ([], [2])

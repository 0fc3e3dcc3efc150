"""Runs of a request that has begun, and a queue that is full."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from regard.errors import EngineError, QueueFullError
from regard.rpc.patience import patiently
from regard.rpc.question_answering import QuestionAnsweringService


class Refusing:
    """Something to run that is refused at some of its calls, by their numbers."""

    def __init__(self, *refused: int) -> None:
        self.refused = refused
        self.calls = 0

    async def run(self, *_: object) -> str:
        """Be refused, or return."""
        self.calls += 1
        if self.calls in self.refused:
            raise QueueFullError("full", retry_after_s=0.001)
        return "done"


async def test_a_full_queue_is_waited_out() -> None:
    """The run is tried again until it is accepted; what else goes wrong ends it."""
    refusing = Refusing(1, 2, 3)
    assert await patiently(refusing.run) == "done"
    assert refusing.calls == 4

    async def fail() -> None:
        raise EngineError("broken")

    with pytest.raises(EngineError):
        await patiently(fail)


async def test_who_leaves_waits_no_more() -> None:
    """Cancelling the call ends the tries."""
    waiting = asyncio.create_task(patiently(Refusing(*range(1, 10_000)).run))
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_windows_behind_the_first_wait_for_the_queue() -> None:
    """Of a question's windows the first is refused at once; where it isn't, or another was before, all are answered."""

    def running(refusing: Refusing, **begun: bool) -> Any:
        service: Any = QuestionAnsweringService(SimpleNamespace(answer=refusing.run))  # type: ignore[arg-type]
        order, windows = SimpleNamespace(places=asyncio.Semaphore(3)), [SimpleNamespace(source=None) for _ in range(3)]
        return service._run(order, windows, **begun)

    assert await running(Refusing(2, 3)) == ["done"] * 3
    assert await running(Refusing(1), begun=True) == ["done"] * 3
    with pytest.raises(QueueFullError):
        await running(Refusing(1))

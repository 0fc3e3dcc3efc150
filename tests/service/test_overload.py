"""More requests than there is room for: who is refused, and what it costs the others."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event

import grpc
import pytest

from regard.rpc.resources import BRIEF_CHARACTERS
from regard.v1 import translation_pb2

from .conftest import Running, Serve

PATIENCE_S = 20.0
"""How long a test waits for what should come at once, before it fails."""
LONG = "hello " * BRIEF_CHARACTERS
"""Is read in the threads."""


def request_of(*texts: str) -> translation_pb2.TranslateRequest:
    """Return a request for translations."""
    return translation_pb2.TranslateRequest(model_name="echo", texts=texts, truncate=True)


@contextmanager
def nothing_is_read(running: Running) -> Iterator[None]:
    """Keep every thread that turns text into tokens busy with something else."""
    release = Event()
    for _ in range(running.server._settings.codec_threads):
        running.server._threads.submit(release.wait)
    try:
        yield
    finally:
        release.set()


async def test_what_there_is_no_room_for_is_refused_before_it_is_read(serve: Serve) -> None:
    """While two texts wait to be read, the third is refused; the two are translated in the end."""
    async with serve() as running, asyncio.timeout(PATIENCE_S):
        worker = running.worker()
        worker.capacity = 2
        with nothing_is_read(running):
            calls = [asyncio.ensure_future(running.translation.Translate(request_of(LONG))) for _ in range(2)]
            while worker.expected < 2:
                await asyncio.sleep(0)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await running.translation.Translate(request_of(LONG))
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert worker.seen == []
        answers = await asyncio.gather(*calls)
        assert all(answer.results[0].HasField("translation") for answer in answers)
        assert worker.expected == 0


async def test_a_text_that_can_not_be_read_gives_its_room_back(serve: Serve) -> None:
    """With room for one, an empty text is a failure, and the next one is translated."""
    async with serve() as running:
        running.worker().capacity = 1
        failed = await running.translation.Translate(request_of(""))
        answered = await running.translation.Translate(request_of("hello"))
    assert failed.results[0].HasField("failure")
    assert answered.results[0].HasField("translation")


async def test_a_caller_who_leaves_before_the_text_is_read_gives_its_room_back(serve: Serve) -> None:
    """With room for one, the next caller has it, and the text of the first is never run."""
    async with serve() as running, asyncio.timeout(PATIENCE_S):
        worker = running.worker()
        worker.capacity = 1
        with nothing_is_read(running):
            call = running.translation.Translate(request_of(LONG))
            while worker.expected < 1:
                await asyncio.sleep(0)
            call.cancel()
            while worker.expected > 0:
                await asyncio.sleep(0)
        answered = await running.translation.Translate(request_of("hello"))
    assert answered.results[0].HasField("translation")
    assert len(worker.seen) == 1

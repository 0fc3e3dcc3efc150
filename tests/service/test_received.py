"""Large requests: how much of them is held at once."""

from __future__ import annotations

import asyncio
import gc

import grpc
import pytest

from regard.rpc.received import Received
from regard.v1 import translation_pb2

from .conftest import Running, Serve
from .test_translation import CAT, refusal, request_of
from .test_undelivered import until

LARGE = "no word of it is read " * 8_000
"""176 KB."""


def held(running: Running) -> float:
    """Return the bytes of requests that are held."""
    return running.metric("regard_received_bytes")


def large(texts: int = 1) -> translation_pb2.TranslateRequest:
    """Return a request of so many long texts, cut to what the model reads."""
    return translation_pb2.TranslateRequest(texts=[LARGE] * texts, truncate=True)


async def test_large_requests_are_refused_while_as_many_are_held_as_may_be(serve: Serve) -> None:
    """With a time to try again, and counted; small ones are served, and large ones again once there is room."""
    async with serve(max_received_bytes=500_000) as running:
        worker = running.worker()
        worker.steps.clear()
        first = [asyncio.ensure_future(running.translation.Translate(large())) for _ in range(2)]
        await worker.until_inside(2)
        assert 350_000 < held(running) < 360_000
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.translation.Translate(large())
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "of requests wait for answers already, of 488.3 KiB that may (max_received_bytes)" in str(
            caught.value.details()
        )
        assert ("grpc-retry-pushback-ms", "1000") in tuple(caught.value.trailing_metadata() or ())
        worker.steps.set()
        await running.translation.Translate(request_of(CAT))
        await asyncio.gather(*first)
        await until(lambda: held(running) == 0)
        await running.translation.Translate(large(2))
        counted = {"model": "", "version": "", "task": "translation", "code": "RESOURCE_EXHAUSTED"}
        assert running.metric("regard_requests_total", **counted) == 1
        assert running.metric("regard_inputs_total", **counted) == 1


async def test_a_request_is_held_alone_however_large_and_none_is_read_beside_it(serve: Serve) -> None:
    """What comes then is refused before its message is received; health is told all the same."""
    async with serve(max_received_bytes=200_000) as running:
        worker = running.worker()
        worker.steps.clear()
        first = asyncio.ensure_future(running.translation.Translate(large(3)))
        await worker.until_inside(3)
        assert held(running) > 500_000
        code, details = await refusal(running.translation.Translate(request_of(CAT)))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "max_received_bytes" in details
        stream = running.translation.StreamTranslate(translation_pb2.StreamTranslateRequest(texts=[CAT]))
        with pytest.raises(grpc.aio.AioRpcError, match="max_received_bytes"):
            [event async for event in stream]
        worker.steps.set()
        await first
        await running.translation.Translate(request_of(CAT))


async def test_what_is_cancelled_or_refused_is_not_held(serve: Serve) -> None:
    """Nor is what was no message."""
    async with serve(max_received_bytes=500_000) as running:
        worker = running.worker()
        worker.steps.clear()
        call = running.translation.Translate(large())
        await worker.until_inside(1)
        call.cancel()
        await until(lambda: held(running) == 0)
        worker.steps.set()
        response = await running.translation.Translate(translation_pb2.TranslateRequest(texts=[LARGE]))
        assert response.results[0].HasField("failure")
        raw = running.channel.unary_unary("/regard.v1.TranslationService/Translate")
        code, _ = await refusal(raw(b"\xff" * 100_000))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        await until(lambda: held(running) == 0)


def test_a_request_counts_for_as_long_as_it_is_there() -> None:
    """Whoever drops it frees its room, without a word."""
    received = Received(100)
    one, other = received.hold("a", 60), received.hold("b", 40)
    assert received.full and not received.has_room(1)
    del one
    gc.collect()
    assert (received.num_bytes, received.full, received.has_room(60), received.has_room(61)) == (40, False, True, False)
    assert other.message == "b"

"""Whose turn it is, as a caller tells the server; and when to come back, as the server tells a caller."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from regard.client import Client, RequestFailed
from regard.engine.request import Priority
from regard.errors import QueueFullError
from regard.v1 import classification_pb2, priority_pb2, translation_pb2

from .conftest import Running, Serve
from .scripted_worker import failing_for

FULL = QueueFullError("2 requests wait already; try again in about 1.5 s", retry_after_s=1.5)


def request(*texts: str, priority: priority_pb2.Priority.ValueType = 0) -> translation_pb2.TranslateRequest:  # type: ignore[assignment]
    """Return a request for the translation of texts."""
    return translation_pb2.TranslateRequest(model_name="echo", texts=texts, priority=priority)


def translate(served: Running, text: str) -> None:
    """Ask as a caller of the synchronous client does."""
    with Client(served.address) as client:
        client.translate(text, model="echo", priority="high")


async def test_the_engine_hears_the_priority_and_the_client_of_a_request(serve: Serve) -> None:
    """Two ids are two clients, whatever connection they share; no priority is a normal one."""
    async with serve() as served:
        asked = [(0, "a"), (priority_pb2.PRIORITY_LOW, "a"), (priority_pb2.PRIORITY_HIGH, "b")]
        for priority, name in asked:
            await served.translation.Translate(request("hello", priority=priority), metadata=(("x-client-id", name),))
        seen = served.worker().seen
        assert [one.priority for one in seen] == [Priority.NORMAL, Priority.LOW, Priority.HIGH]
        assert seen[0].client == seen[1].client != seen[2].client
        await served.classification.Classify(
            classification_pb2.ClassifyRequest(
                inputs=[classification_pb2.ClassificationInput(text="hello")], priority=priority_pb2.PRIORITY_HIGH
            )
        )
        (classified,) = served.worker("sorter").seen
        assert (classified.priority, bool(classified.client)) == (Priority.HIGH, True)


async def test_a_priority_that_is_none_is_refused(serve: Serve) -> None:
    """The message names the field."""
    async with serve() as served:
        with pytest.raises(
            grpc.aio.AioRpcError, match=r"priority: 9 is not one of 3 \(high\), 2 \(normal\), 1 \(low\)"
        ) as refused:
            await served.translation.Translate(request("hello", priority=9))  # type: ignore[arg-type]
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_refused_call_says_when_to_try_again(serve: Serve) -> None:
    """In milliseconds where gRPC's retries look for it, and in seconds to a caller of the client."""
    async with serve() as served:
        served.worker().fail = lambda _: FULL
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await served.translation.Translate(request("hello"))
        assert dict(refused.value.trailing_metadata() or ())["grpc-retry-pushback-ms"] == "1500"
        with pytest.raises(RequestFailed) as failed:
            await asyncio.to_thread(translate, served, "hello")
        assert (failed.value.code_name, failed.value.retry_after_s) == ("RESOURCE_EXHAUSTED", 1.5)


async def test_a_refused_input_says_when_to_try_again(serve: Serve) -> None:
    """Beside one that is served, the failure of the other holds it."""
    async with serve() as served:
        await served.translation.Translate(request("a b c d e f"))
        served.worker().fail = failing_for(served.worker().seen[-1].source.length, FULL)
        answer = await served.translation.Translate(request("a b c d e f", "a"))
        assert answer.results[0].failure.retry_after_s == 1.5
        assert answer.results[1].HasField("translation")

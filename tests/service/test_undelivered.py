"""Callers who don't read what they asked for: how much waits for them, and for how long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import grpc
import pytest

from regard.errors import CallerStalledError
from regard.rpc.undelivered import Undelivered
from regard.v1 import attention_pb2, translation_pb2, translation_pb2_grpc

from .conftest import Running, Serve
from .test_translation import CAT, refusal

LONG = " ".join([CAT] * 4)
EVERYTHING = attention_pb2.AttentionOptions(
    kinds=[attention_pb2.ATTENTION_KIND_SELF, attention_pb2.ATTENTION_KIND_CROSS]
)


@asynccontextmanager
async def narrow(running: Running) -> AsyncIterator[translation_pb2_grpc.TranslationServiceAsyncStub]:
    """Yield a stub on a connection that holds 64 KiB, and doesn't grow as others do where there is much to come."""
    options = [("grpc.http2.bdp_probe", 0)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{running.server.grpc_port}", options) as channel:
        yield translation_pb2_grpc.TranslationServiceStub(channel)


def much() -> translation_pb2.StreamTranslateRequest:
    """Return a request for a stream of more than such a connection holds."""
    return translation_pb2.StreamTranslateRequest(
        texts=[LONG] * 64, truncate=True, attention=EVERYTHING, generation={"max_new_tokens": 1}
    )


def asking(**fields: object) -> translation_pb2.TranslateRequest:
    """Return a request for one text."""
    return translation_pb2.TranslateRequest(texts=[CAT], **fields)


def waiting(running: Running) -> float:
    """Return the bytes that wait."""
    return running.metric("regard_undelivered_bytes")


async def until(condition: Callable[[], bool]) -> None:
    """Return once `condition` holds."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_stream_that_nobody_reads_ends(serve: Serve) -> None:
    """Its caller finds what there was and why there is no more; whoever reads slowly, but reads, has it whole."""
    async with serve(max_stall_s=0.3) as running, narrow(running) as stub:
        call = stub.StreamTranslate(much())
        ended = {"model": "echo", "version": "1", "task": "translation", "code": "RESOURCE_EXHAUSTED"}
        await until(lambda: running.metric("regard_requests_total", **ended) == 1)
        read = 0
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in call:
                read += 1
        assert 0 < read < 64 * 2
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "nothing of this stream was read for 0.3 s" in str(caught.value.details())
        await until(lambda: waiting(running) == 0)

        results = 0
        async for event in stub.StreamTranslate(much()):
            if event.HasField("translation"):
                results += 1
                await asyncio.sleep(0.01)
        assert results == 64


async def test_while_much_waits_attention_is_refused_and_nothing_else(serve: Serve) -> None:
    """Until it is read; and a cancelled call holds nothing."""
    async with serve(max_undelivered_bytes=100_000) as running, narrow(running) as stub:
        call = stub.StreamTranslate(much())
        await until(lambda: waiting(running) > 50_000)
        code, details = await refusal(running.translation.Translate(asking(attention={})))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "of attention wait for callers who don't take them" in details
        assert "97.7 KiB that may (max_undelivered_bytes)" in details
        await running.translation.Translate(asking())

        assert len([event async for event in call if event.HasField("translation")]) == 64
        await until(lambda: waiting(running) == 0)
        await running.translation.Translate(asking(attention={}))
        await until(lambda: waiting(running) == 0)

        call = stub.StreamTranslate(much())
        await until(lambda: waiting(running) > 50_000)
        call.cancel()
        await until(lambda: waiting(running) == 0)


async def test_a_refusal_says_when_to_try_again(serve: Serve) -> None:
    """As gRPC's own retries read it."""
    async with serve(max_undelivered_bytes=100_000) as running, narrow(running) as stub:
        call = stub.StreamTranslate(much())
        await until(lambda: waiting(running) > 50_000)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.translation.Translate(asking(attention={}))
        assert ("grpc-retry-pushback-ms", "1000") in tuple(caught.value.trailing_metadata() or ())
        call.cancel()


def test_an_account_counts_nothing_after_its_call() -> None:
    """Threads may still be at work for a call that has ended."""
    whole = Undelivered(100)
    one, other = whole.account(), whole.account()
    one.add(60)
    other.add(50)
    one.close()
    one.add(1000)
    assert whole.num_bytes == 50
    one.close()
    other.add(-50)
    other.close()
    assert whole.num_bytes == 0


def test_of_streams_under_way_those_end_that_hold_more_than_their_share() -> None:
    """Whoever reads what comes is not among them, unless nothing is left."""
    whole = Undelivered(200)
    reader, hoarder, other = whole.account(), whole.account(), whole.account()
    hoarder.add_streamed(60)
    other.add_streamed(30)
    reader.add_streamed(20)
    reader.add_streamed(-20)
    with pytest.raises(
        CallerStalledError, match="90 bytes of attention wait to be read by this and other callers, and 200 bytes may"
    ):
        hoarder.add_streamed(11)
    assert whole.num_bytes == 90
    other.add_streamed(11)
    reader.add_streamed(10)
    hoarder.close()
    assert whole.num_bytes == 51
    reader.add_streamed(149)
    assert whole.num_bytes == 200
    with pytest.raises(CallerStalledError):
        whole.account().add_streamed(1)

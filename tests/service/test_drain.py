"""Going down: what was accepted is finished, what comes later is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2

from regard.config import ServerSettings
from regard.metrics import Metrics
from regard.rpc.server import Server
from regard.v1 import translation_pb2, translation_pb2_grpc

from .conftest import Serve, catalog_of
from .scripted_worker import ScriptedWorker
from .test_health import NOT_SERVING, SERVING, http, stub_of, watch
from .test_translation import CAT, HELLO, refusal, request_of


async def test_a_drain_under_load_loses_nothing(serve: Serve) -> None:
    """Every accepted request, unary or streaming, gets its whole answer while the server goes down."""
    async with serve() as running:
        worker = running.worker()
        worker.steps.clear()
        calls = [asyncio.ensure_future(running.translation.Translate(request_of(CAT, HELLO))) for _ in range(20)]
        stream = running.translation.StreamTranslate(translation_pb2.StreamTranslateRequest(texts=[CAT]))
        streaming = asyncio.ensure_future(_texts_of(stream))
        await worker.until_inside(41)
        stopping = asyncio.ensure_future(running.server.stop())
        await _until_draining(running.server)
        code, details = await refusal(running.translation.Translate(request_of(CAT)))
        assert not stopping.done()
        worker.steps.set()
        responses = await asyncio.gather(*calls)
        streamed = await streaming
        await stopping

    texts = [[result.translation.text for result in response.results] for response in responses]
    assert texts == [[CAT, HELLO]] * 20
    assert streamed[-1] == CAT
    assert (code, "shutting down" in details) == (grpc.StatusCode.UNAVAILABLE, True)


async def test_health_and_readiness_turn_before_the_first_request_is_refused(serve: Serve) -> None:
    """A draining server answers its probes, and its watchers hear of it and are let go."""
    async with serve() as running:
        worker = running.worker()
        worker.steps.clear()
        call = asyncio.ensure_future(running.translation.Translate(request_of(CAT)))
        await worker.until_inside(1)
        watched = watch(running)
        before = (await watched.read()).status
        stopping = asyncio.ensure_future(running.server.stop())
        after = (await watched.read()).status
        check = await stub_of(running).Check(health_pb2.HealthCheckRequest(service="echo"))
        pages = [await http(running, path) for path in ("/healthz", "/readyz")]
        worker.steps.set()
        await call
        await stopping
        end = await watched.read()

    assert (before, after) == (SERVING, NOT_SERVING)
    assert check.status == NOT_SERVING
    assert pages == [(200, "ok\n"), (503, "draining\n")]
    assert end is grpc.aio.EOF


async def test_a_drain_ends_at_its_timeout(serve: Serve) -> None:
    """What is not done in time is told UNAVAILABLE, and the server still goes down."""
    async with serve(drain_timeout_s=0.1) as running:
        worker = running.worker()
        worker.steps.clear()
        call = asyncio.ensure_future(refusal(running.translation.Translate(request_of(CAT))))
        await worker.until_inside(1)
        await running.server.stop()
        code, _ = await call

    assert code is grpc.StatusCode.UNAVAILABLE


async def test_while_a_model_loads_its_requests_are_refused(models: Path) -> None:
    """The ports answer from the start; a model takes requests once it is loaded."""
    metrics = Metrics()
    catalog = catalog_of(models, metrics)
    worker = catalog.find("echo").worker
    assert isinstance(worker, ScriptedWorker)
    server = Server(ServerSettings(grpc_port=0, http_port=0), catalog, metrics)
    loop = asyncio.get_running_loop()
    loading, loaded = asyncio.Event(), asyncio.Event()

    def start() -> None:
        loop.call_soon_threadsafe(loading.set)
        asyncio.run_coroutine_threadsafe(loaded.wait(), loop).result()
        worker.ready = True

    worker.start = start  # type: ignore[method-assign]
    starting = asyncio.ensure_future(server.start())
    await loading.wait()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        stub = translation_pb2_grpc.TranslationServiceStub(channel)
        code, _ = await refusal(stub.Translate(request_of(CAT)))
        loaded.set()
        await starting
        response = await stub.Translate(request_of(CAT))
        await server.stop()

    assert code is grpc.StatusCode.UNAVAILABLE
    assert response.results[0].translation.text == CAT


@pytest.mark.parametrize("last", ["echo", "sorter"])
async def test_a_server_told_to_stop_while_it_loads_loads_no_other_model(models: Path, last: str) -> None:
    """Nor does it say that it is ready, even where the model that it was loading was the last one."""
    metrics = Metrics()
    catalog = catalog_of(models, metrics)
    stopping, loop, started = asyncio.Event(), asyncio.get_running_loop(), list[str]()

    def start_of(name: str, start: Callable[[], None]) -> None:
        started.append(name)
        if name == last:
            loop.call_soon_threadsafe(stopping.set)
        start()

    for model in catalog.models:
        worker = model.worker
        worker.start = partial(start_of, model.manifest.name, worker.start)  # type: ignore[method-assign]
    server = Server(ServerSettings(grpc_port=0, http_port=0), catalog, metrics)
    await server.start(stopping)
    ready = metrics.registry.get_sample_value("regard_model_ready", {"model": last, "version": "1"})
    await server.stop()

    assert started == ["echo", "sorter"][: 1 + (last == "sorter")]
    assert not ready


async def _texts_of(stream: grpc.aio.UnaryStreamCall) -> list[str]:
    return [event.translation.text async for event in stream if event.HasField("translation")]


async def _until_draining(server: Server) -> None:
    while server.accepting:
        await asyncio.sleep(0)


async def test_requests_that_arrive_after_the_last_answer_can_be_tried_elsewhere(serve: Serve) -> None:
    """Requests that reach a server whose models are gone end with UNAVAILABLE, never with a code that is final."""
    async with serve() as running:
        worker = running.worker()
        late: list[asyncio.Future[tuple[grpc.StatusCode, str]]] = []
        stop_worker = worker.stop

        def stop_and_be_called() -> None:
            stop_worker()
            loop.call_soon_threadsafe(call)

        def call() -> None:
            late.extend(
                asyncio.ensure_future(refusal(running.translation.Translate(request_of(CAT)))) for _ in range(50)
            )

        loop = asyncio.get_running_loop()
        worker.stop = stop_and_be_called  # type: ignore[method-assign]
        await running.translation.Translate(request_of(CAT))
        await running.server.stop()
        answers = await asyncio.gather(*late)
        code, _ = await refusal(running.translation.Translate(request_of(CAT)))

    assert [code for code, _ in answers] == [grpc.StatusCode.UNAVAILABLE] * 50
    assert code is grpc.StatusCode.UNAVAILABLE

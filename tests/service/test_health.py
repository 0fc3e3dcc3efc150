"""Health and readiness: by gRPC for each model, and by HTTP while everything is busy."""

from __future__ import annotations

import asyncio
import socket
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from structlog.testing import capture_logs

from regard.config import ServerSettings
from regard.errors import ConfigurationError
from regard.metrics import Metrics
from regard.rpc.server import Server

from .conftest import Running, Serve, catalog_of
from .test_translation import CAT, refusal
from .test_translation import request_of as translate_request_of

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


def stub_of(running: Running) -> health_pb2_grpc.HealthStub:
    """Return a stub of the health service."""
    return health_pb2_grpc.HealthStub(running.channel)


def watch(running: Running, service: str = "") -> grpc.aio.UnaryStreamCall:
    """Watch a service."""
    return stub_of(running).Watch(health_pb2.HealthCheckRequest(service=service))


async def http(running: Running, path: str) -> tuple[int, str]:
    """Return the status and the body of a page."""

    def fetch() -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{running.server.http_port}{path}", timeout=5) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    return await asyncio.to_thread(fetch)


@pytest.mark.parametrize("service", ["", "echo", "echo/1", "sorter", "sorter/1"])
async def test_a_ready_server_and_its_models_are_serving(serve: Serve, service: str) -> None:
    """Check answers for the server, a model and a version of it."""
    async with serve() as running:
        response = await stub_of(running).Check(health_pb2.HealthCheckRequest(service=service))

    assert response.status == SERVING


async def test_checking_an_unknown_model_is_not_found(serve: Serve) -> None:
    """As the protocol has it: Check ends with NOT_FOUND, Watch says SERVICE_UNKNOWN."""
    async with serve() as running:
        code, _ = await refusal(stub_of(running).Check(health_pb2.HealthCheckRequest(service="echo/9")))
        watched = await watch(running, "echo/9").read()

    assert code is grpc.StatusCode.NOT_FOUND
    assert watched.status == SERVICE_UNKNOWN


async def test_watchers_hear_of_a_model_that_fails_and_of_no_other(serve: Serve) -> None:
    """A model that is not ready any more turns itself and the server; the other stays."""
    async with serve() as running:
        server, echo, sorter = watch(running), watch(running, "echo"), watch(running, "sorter")
        first = [(await one.read()).status for one in (server, echo, sorter)]
        running.worker("echo").ready = False
        second = [(await one.read()).status for one in (server, echo)]
        still = await stub_of(running).Check(health_pb2.HealthCheckRequest(service="sorter"))
        ready, reasons = await http(running, "/readyz")
        gauges = [running.metric("regard_model_ready", model=name, version="1") for name in ("echo", "sorter")]

    assert first == [SERVING] * 3
    assert second == [NOT_SERVING] * 2
    assert still.status == SERVING
    assert (ready, reasons) == (503, "echo/1 is not ready\n")
    assert gauges == [0.0, 1.0]


async def test_models_that_have_not_been_loaded_are_told_to_be_unready(models: Path) -> None:
    """While the first one loads there is a series for each: what is not there wakes nobody."""
    metrics = Metrics()
    Server(ServerSettings(), catalog_of(models, metrics), metrics)

    for name in ("echo", "sorter"):
        labels = {"model": name, "version": "1"}
        assert metrics.registry.get_sample_value("regard_model_ready", labels) == 0


async def test_a_watcher_hears_after_another_has_left(serve: Serve) -> None:
    """Watchers of one name don't depend on each other."""
    async with serve() as running:
        leaving, staying = watch(running, "echo"), watch(running, "echo")
        await leaving.read()
        await staying.read()
        leaving.cancel()
        running.worker("echo").ready = False
        status = (await staying.read()).status

    assert status == NOT_SERVING


async def test_a_model_that_is_not_ready_refuses_with_unavailable(serve: Serve) -> None:
    """Requests for it can be tried elsewhere."""
    async with serve() as running:
        running.worker("echo").ready = False
        code, details = await refusal(running.translation.Translate(translate_request_of(CAT)))

    assert code is grpc.StatusCode.UNAVAILABLE
    assert "echo/1 is not ready" in details


def call_of(path: bytes) -> bytes:
    """Return the bytes of a connection that makes one empty call (RFC 9113, section 6; RFC 7541, section 6.2)."""
    fields = {b":method": b"POST", b":scheme": b"http", b":path": path, b":authority": b"x"}
    fields |= {b"te": b"trailers", b"content-type": b"application/grpc"}
    literals = [b"\0%c%b%c%b" % (len(name), name, len(value), value) for name, value in fields.items()]

    def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload

    settings, headers, data = frame(4, 0, 0, b""), frame(1, 4, 1, b"".join(literals)), frame(0, 1, 1, bytes(5))
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings + headers + data


async def test_a_call_whose_path_is_not_text_closes_the_port_to_nobody(serve: Serve) -> None:
    """It ends gRPC's own loop; calls under way go on, and who comes next is served on the same port."""
    async with serve() as running:
        watching = watch(running)
        first = (await watching.read()).status
        _, writer = await asyncio.open_connection("127.0.0.1", running.server.grpc_port)
        with capture_logs() as logs:
            writer.write(call_of(b"/\xff"))
            async with asyncio.timeout(20):
                while not logs:
                    await asyncio.sleep(0.05)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{running.server.grpc_port}") as channel:
            checked = await health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=20
            )
        ready, _ = await http(running, "/readyz")
        running.worker("echo").ready = False
        second = (await watching.read()).status
        writer.close()

    assert (first, checked.status, ready, second) == (SERVING, SERVING, 200, NOT_SERVING)
    assert logs[0]["log_level"] == "error"
    assert logs[0]["error"] == "UnicodeDecodeError"


async def test_pages_answer_while_everything_is_busy(serve: Serve) -> None:
    """Probes are answered while the workers are full and the event loop is held."""
    async with serve() as running:
        worker = running.worker()
        worker.steps.clear()
        busy = asyncio.ensure_future(running.translation.Translate(translate_request_of(CAT)))
        await worker.until_inside(1)
        pages = [await http(running, path) for path in ("/healthz", "/readyz")]
        check = await stub_of(running).Check(health_pb2.HealthCheckRequest())
        worker.steps.set()
        await busy

    assert pages == [(200, "ok\n"), (200, "ready\n")]
    assert check.status == SERVING


async def test_a_held_event_loop_does_not_hold_the_pages(serve: Serve) -> None:
    """HTTP has threads of its own: it answers while the event loop runs nothing at all."""
    async with serve() as running:
        url = f"http://127.0.0.1:{running.server.http_port}/healthz"
        with urllib.request.urlopen(url, timeout=5) as response:  # blocks the loop that the server lives in
            assert response.status == 200


async def test_unknown_pages_say_which_there_are(serve: Serve) -> None:
    """A wrong path is 404 with the right ones."""
    async with serve() as running:
        status, body = await http(running, "/metric")

    assert status == 404
    assert "/metrics" in body


async def test_reflection_lists_every_service(serve: Serve) -> None:
    """Tools that know no proto file find the services and their messages."""
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="regard.v1.TranslationService"),
    ]
    async with serve() as running:
        call = reflection_pb2_grpc.ServerReflectionStub(running.channel).ServerReflectionInfo(iter(requests))
        listed, described = [response async for response in call]

    assert {service.name for service in listed.list_services_response.service} == {
        "regard.v1.TranslationService",
        "regard.v1.CaptionService",
        "regard.v1.ClassificationService",
        "regard.v1.QuestionAnsweringService",
        "regard.v1.SimilarityService",
        "regard.v1.TranscriptionService",
        "regard.v1.CompletionService",
        "regard.v1.AttributionService",
        "regard.v1.ModelService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    assert described.file_descriptor_response.file_descriptor_proto


async def test_a_malformed_question_to_reflection_is_the_callers_fault(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """It ends with INVALID_ARGUMENT in the words of every other method, and the log has no trace of it."""
    good = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
    async with serve() as running:
        ask = running.channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
        call = ask(iter([good, b"\xff"]))
        answered = await call.read()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call.read()

    assert isinstance(answered, bytes)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.value.details() == "the request's bytes are not its message, or hold text that is not UTF-8"
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize("which", ["grpc_port", "http_port"])
async def test_a_taken_port_is_named(serve: Serve, which: str) -> None:
    """A port that another holds ends the start, for either of the two; it is not shared."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]

        with pytest.raises(ConfigurationError, match=f"port {port} of 127.0.0.1"):
            async with serve(**{which: port}):
                pytest.fail("it started")


async def test_methods_are_found_by_name_and_none_is_registered(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for a registered method is freed and written to when gRPC's loop ends on an error."""
    registered: list[str] = []
    monkeypatch.setattr(
        type(grpc.aio.server()),
        "add_registered_method_handlers",
        lambda self, service, handlers: registered.append(service),
    )
    async with serve() as running:
        response = await running.translation.Translate(translate_request_of(CAT))

    assert response.results[0].translation.text == CAT
    assert not registered

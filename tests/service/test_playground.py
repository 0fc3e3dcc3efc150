"""The playground's way from the HTTP port to the gRPC port: the same answers, and nobody else's requests."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
from typing import Any

import pytest
from google.protobuf import json_format

from regard.rpc.playground.bridge import MAX_CALLS
from regard.v1 import model_pb2, translation_pb2

from .conftest import Running, Serve
from .test_health import http as fetch
from .test_translation import CAT, HELLO

STREAM_TRANSLATE = "regard.v1.TranslationService/StreamTranslate"
LIST_MODELS = "regard.v1.ModelService/ListModels"
JSON = {"Content-Type": "application/json"}


async def ask(
    running: Running, method: str, body: str | bytes | dict[str, Any], *, verb: str = "POST", **headers: str
) -> tuple[int, dict[str, str], str]:
    """Return the status, the headers and the body of an answer; a header's name has underscores for its hyphens."""
    content = json.dumps(body) if isinstance(body, dict) else body
    given = JSON | {name.replace("_", "-"): value for name, value in headers.items()}

    def send() -> tuple[int, dict[str, str], str]:
        connection = http.client.HTTPConnection("127.0.0.1", running.server.http_port, timeout=10)
        try:
            connection.request(verb, f"/playground/{method}", content, given)
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read().decode()
        finally:
            connection.close()

    return await asyncio.to_thread(send)


def begin(running: Running, text: str, version: str = "1.1") -> socket.socket:
    """Send a request without waiting for its answer; return the connection."""
    body = json.dumps({"texts": [text]})
    host = f"127.0.0.1:{running.server.http_port}"
    head = f"POST /playground/{STREAM_TRANSLATE} HTTP/{version}\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    connection = socket.create_connection(("127.0.0.1", running.server.http_port), timeout=10)
    connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
    return connection


async def test_the_page_is_one_file_that_nothing_may_frame(serve: Serve) -> None:
    """The page comes with the policy that it needs, and the root leads to it."""
    async with serve() as running:
        status, headers, page = await ask(running, "", "", verb="GET")
        led = await fetch(running, "/")

    assert status == 200
    assert led == (200, page)
    assert "<title>Playground · Regard</title>" in page
    assert "default-src 'none'; script-src 'sha256-" in headers["Content-Security-Policy"]
    assert headers["Content-Security-Policy"].endswith("frame-ancestors 'none'")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "Access-Control-Allow-Origin" not in headers


async def test_without_it_nothing_is_there(serve: Serve) -> None:
    """A server that has no playground answers neither the page nor requests, and its probes all the same."""
    async with serve(playground=False) as running:
        page = await fetch(running, "/playground")
        asked = await ask(running, LIST_MODELS, {})
        health = await fetch(running, "/healthz")

    assert (page[0], asked[0], health[0]) == (404, 404, 200)
    assert "playground" not in page[1]


async def test_a_stream_has_the_events_of_grpc(serve: Serve) -> None:
    """Every event is a line, the same that the gRPC port sends, in the API's own JSON."""
    request = translation_pb2.StreamTranslateRequest(texts=[CAT, HELLO], attention={})
    async with serve() as running:
        sent = [event async for event in running.translation.StreamTranslate(request)]
        status, headers, body = await ask(running, STREAM_TRANSLATE, json_format.MessageToJson(request))

    events = [json_format.Parse(line, translation_pb2.StreamTranslateResponse()) for line in body.splitlines()]
    for event in (*sent, *events):
        event.translation.ClearField("timing")
    assert status == 200
    assert headers["Content-Type"].startswith("application/x-ndjson")
    assert sorted(map(str, events)) == sorted(map(str, sent))
    assert json.loads(body.splitlines()[0])["input_index"] == 0


async def test_a_method_with_one_answer_has_one_line(serve: Serve) -> None:
    """A method that doesn't stream is asked in the same way."""
    async with serve() as running:
        sent = await running.models.ListModels(model_pb2.ListModelsRequest())
        status, _, body = await ask(running, LIST_MODELS, {})

    (line,) = body.splitlines()
    assert status == 200
    assert json_format.Parse(line, model_pb2.ListModelsResponse()) == sent


async def test_requests_are_counted_as_grpc_s(serve: Serve) -> None:
    """A request of the playground passes the same door, and the metrics know it."""
    async with serve() as running:
        await ask(running, STREAM_TRANSLATE, {"texts": [CAT]})
        counted = running.metric("regard_requests_total", model="echo", version="1", task="translation", code="OK")

    assert counted == 1


@pytest.mark.parametrize(
    ("body", "status", "code", "says"),
    [
        ({"texts": [CAT], "generation": {"num_beams": 0}}, 400, "INVALID_ARGUMENT", "generation.num_beams is 0"),
        ({"texts": [CAT], "model_name": "nobody"}, 404, "NOT_FOUND", "no model 'nobody'"),
        ({"texts": [CAT] * 100}, 400, "INVALID_ARGUMENT", "from 1 to 64"),
        ({"text": CAT}, 400, "INVALID_ARGUMENT", "is no StreamTranslateRequest"),
        ("{", 400, "INVALID_ARGUMENT", "is no StreamTranslateRequest"),
        ('{"texts": ["\\ud800"]}', 400, "INVALID_ARGUMENT", "is no StreamTranslateRequest"),
        (b'{"texts": ["\xff"]}', 400, "INVALID_ARGUMENT", "is no StreamTranslateRequest"),
        ("[" * 100_000, 400, "INVALID_ARGUMENT", "is no StreamTranslateRequest"),
    ],
    ids=["option", "model", "inputs", "field", "no JSON", "surrogate", "no UTF-8", "depth"],
)
async def test_a_refusal_has_its_status_and_reason(
    serve: Serve, body: str | bytes | dict[str, Any], status: int, code: str, says: str
) -> None:
    """What gRPC refuses has the HTTP status of its code, and what is no request is told to be none."""
    async with serve() as running:
        answered, _, refusal = await ask(running, STREAM_TRANSLATE, body)

    error = json.loads(refusal)["error"]
    assert (answered, error["code"]) == (status, code)
    assert says in error["message"]
    assert "Traceback" not in refusal
    assert "/service/" not in refusal


@pytest.mark.parametrize(
    ("method", "verb", "headers", "status"),
    [
        (STREAM_TRANSLATE, "GET", {}, 405),
        (STREAM_TRANSLATE, "OPTIONS", {}, 405),
        ("", "POST", {}, 405),
        ("regard.v1.TranslationService/Undo", "POST", {}, 404),
        ("grpc.health.v1.Health/Watch", "POST", {}, 404),
        (LIST_MODELS, "POST", {"Content_Type": "text/plain"}, 415),
        (LIST_MODELS, "POST", {"Content_Type": "application/x-www-form-urlencoded"}, 415),
        (LIST_MODELS, "POST", {"Sec_Fetch_Site": "cross-site"}, 403),
        (LIST_MODELS, "POST", {"Sec_Fetch_Site": "same-site"}, 403),
        (LIST_MODELS, "POST", {"Origin": "http://elsewhere.example"}, 403),
        (LIST_MODELS, "POST", {"Origin": "null"}, 403),
        (LIST_MODELS, "POST", {"Host": "rebound.example"}, 421),
        (LIST_MODELS, "POST", {"Host": "[::1"}, 421),
        (LIST_MODELS, "POST", {"Origin": "http://["}, 403),
        (LIST_MODELS, "POST", {"Host": "rebound.example", "Sec_Fetch_Site": "same-origin"}, 421),
        (LIST_MODELS, "POST", {"Content_Length": "99999999"}, 413),
        (LIST_MODELS, "POST", {"Content_Length": "many"}, 411),
        (LIST_MODELS, "POST", {"Sec_Fetch_Site": "same-origin"}, 200),
        (LIST_MODELS, "POST", {"Host": "gpu:8080", "Origin": "http://gpu:8080"}, 200),
        (LIST_MODELS, "POST", {"Host": "[::1]:8080", "Origin": "http://[::1]:8080"}, 200),
    ],
)
async def test_only_the_page_and_programs_may_ask(
    serve: Serve, method: str, verb: str, headers: dict[str, str], status: int
) -> None:
    """Another site's request, another verb or method, and a body that is no JSON or too long get nowhere."""
    async with serve() as running:
        answered, sent, _ = await ask(running, method, {}, verb=verb, **headers)

    assert answered == status
    assert not [name for name in sent if name.lower().startswith("access-control")]


async def test_leaving_cancels_the_request(serve: Serve) -> None:
    """A browser that hangs up takes its request out of the batch, even before there was a token."""
    async with serve() as running:
        worker = running.worker()
        worker.steps.clear()
        connection = await asyncio.to_thread(begin, running, CAT)
        await worker.until_inside(1)
        connection.close()
        await worker.until_inside(0)

    assert worker.left_early == 1


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_who_only_has_no_more_to_say_is_answered(serve: Serve, version: str) -> None:
    """A client that closes its side of the connection behind its request, as `nc -N` does, gets the whole answer."""
    async with serve() as running:
        worker = running.worker()
        worker.steps.clear()
        connection = await asyncio.to_thread(begin, running, CAT, version)
        await worker.until_inside(1)
        connection.shutdown(socket.SHUT_WR)
        first = await asyncio.to_thread(connection.recv, 1)
        worker.steps.set()
        head, _, body = (first.decode() + await asyncio.to_thread(_read, connection)).partition("\r\n\r\n")

    assert head.startswith("HTTP/1.0 200 OK\r\n")
    assert "".join(json.loads(line).get("delta", {}).get("text", "") for line in body.splitlines()) == CAT
    assert worker.left_early == 0


async def test_who_leaves_after_all_is_noticed(serve: Serve) -> None:
    """A client that had no more to say and hangs up all the same takes its request out with the next token."""
    async with serve() as running:
        worker = running.worker()
        worker.steps.clear()
        connection = await asyncio.to_thread(begin, running, CAT)
        await worker.until_inside(1)
        connection.shutdown(socket.SHUT_WR)
        await asyncio.to_thread(connection.recv, 1)
        connection.close()
        worker.pause_after = 1
        worker.steps.set()
        await worker.until_inside(0)

    assert worker.left_early == 1


async def test_only_so_many_are_answered_at_a_time(serve: Serve) -> None:
    """One more than the playground's places is refused at once, with the time to try again, and gRPC isn't."""
    async with serve() as running:
        worker = running.worker()
        worker.steps.clear()
        connections = [await asyncio.to_thread(begin, running, CAT) for _ in range(MAX_CALLS)]
        await worker.until_inside(MAX_CALLS)
        status, headers, _ = await ask(running, STREAM_TRANSLATE, {"texts": [CAT]})
        models = await running.models.ListModels(model_pb2.ListModelsRequest())
        worker.steps.set()
        answers = [await asyncio.to_thread(_read, connection) for connection in connections]
        afterwards, _, _ = await ask(running, STREAM_TRANSLATE, {"texts": [CAT]})

    assert (status, headers["Retry-After"]) == (429, "1")
    assert len(models.models) == 2
    assert all(CAT in answer for answer in answers)
    assert afterwards == 200


def _read(connection: socket.socket) -> str:
    with connection:
        return b"".join(iter(lambda: connection.recv(65536), b"")).decode()

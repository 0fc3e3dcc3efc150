"""The playground's application: the page, and the requests that it sends."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import cached_property
from http import HTTPStatus
from importlib.resources import files
from typing import TYPE_CHECKING

import grpc

from regard.config import ServerSettings
from regard.rpc.playground.bridge import METHODS, Bridge, Lines, error_line
from regard.rpc.playground.guard import Refusal, check_origin, read_body
from regard.viewer import Page, make_page

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

PATH = "/playground"
SCRIPTS = (
    "scenes.js",
    "examples.js",
    "tasks.js",
    "messages.js",
    "live.js",
    "snippets.js",
    "events.js",
    "files.js",
    "form.js",
    "page.js",
)
_ANYWHERE = (
    ("X-Content-Type-Options", "nosniff"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
)


class Playground:
    """Answers what lies below `PATH`, by way of the gRPC port of the same server."""

    def __init__(self, settings: ServerSettings, grpc_port: int) -> None:
        self._settings = settings
        self._grpc_port = grpc_port
        self._bridge = Bridge(f"{_reachable(settings.host)}:{grpc_port}")

    def close(self) -> None:
        """End what still runs."""
        self._bridge.close()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        path, method = environ.get("PATH_INFO", ""), environ.get("REQUEST_METHOD", "")
        try:
            if path.rstrip("/") == PATH:
                _check_method(method, "GET", "HEAD")
                return self._send_page(start_response)
            _check_method(method, "POST")
            return self._answer(path.removeprefix(f"{PATH}/"), environ, start_response)
        except Refusal as refusal:
            return _refuse(refusal, start_response)

    @cached_property
    def page(self) -> Page:
        """The page, which is told what it can't ask."""
        told = {
            "grpc_port": self._grpc_port,
            "max_image_bytes": self._settings.max_image_bytes,
            "max_audio_bytes": self._settings.max_audio_bytes,
        }
        return make_page(files(__package__).joinpath("page"), SCRIPTS, told, connect="'self'")

    def _send_page(self, start_response: StartResponse) -> Iterable[bytes]:
        content = self.page.html.encode()
        headers = [
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Length", str(len(content))),
            ("Content-Security-Policy", f"{self.page.policy}; frame-ancestors 'none'"),
            ("Cross-Origin-Opener-Policy", "same-origin"),
            ("Cache-Control", "no-cache"),
        ]
        start_response("200 OK", [*headers, *_ANYWHERE])
        return [content]

    def _answer(self, name: str, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        check_origin(environ, self._settings.host)
        method = METHODS.get(name)
        if method is None:
            raise Refusal(HTTPStatus.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED, "the playground has no such method")
        with ExitStack() as undo:
            undo.enter_context(self._bridge.place())
            body = read_body(environ, self._settings.max_message_bytes * 4 // 3)  # bytes are base64 in JSON
            connection, probe = environ["regard.connection"], environ["regard.answer"].send_first_byte
            lines = self._bridge.call(method, body, environ.get("REMOTE_ADDR", ""), connection, probe)
            undo.callback(lines.close)
            lines.begin()
            headers = [("Content-Type", "application/x-ndjson; charset=utf-8"), ("Cache-Control", "no-store")]
            start_response("200 OK", [*headers, *_ANYWHERE])
            return _Body(lines, undo.pop_all().close)


class _Body:
    """The lines of a call as they come; `close` is called however they end."""

    def __init__(self, lines: Lines, close: Callable[[], None]) -> None:
        self._lines = lines
        self.close = close

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._lines)


def _check_method(method: str, *allowed: str) -> None:
    if method not in allowed:
        raise Refusal(
            HTTPStatus.METHOD_NOT_ALLOWED, grpc.StatusCode.UNIMPLEMENTED, f"this path takes {' and '.join(allowed)}"
        )


def _refuse(refusal: Refusal, start_response: StartResponse) -> Iterable[bytes]:
    headers = [("Content-Type", "application/json; charset=utf-8"), ("Cache-Control", "no-store")]
    if refusal.retry_after_s is not None:
        headers.append(("Retry-After", str(math.ceil(refusal.retry_after_s))))
    start_response(refusal.status_line, [*headers, *_ANYWHERE])
    return [error_line(refusal)]


def _reachable(host: str) -> str:
    """Return the address of this very machine at which a server that listens on `host` is reached."""
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{address}]" if ":" in address else address

"""/metrics, /healthz, /readyz and the playground over HTTP, on threads of their own."""

from __future__ import annotations

import io
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import structlog
from prometheus_client import CollectorRegistry, make_wsgi_app

from regard.errors import ConfigurationError

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from _typeshed import ReadableBuffer, WriteableBuffer

HEAD_TIMEOUT_S = 10.0
"""How long the whole head of a request may take to arrive."""
STOP_S = 2.0
"""How long the server's thread has to end; it looks whether it should ten times a second."""
_FIRST_BYTE = b"H"
"""Of `HTTP/1.0`, with which every answer begins."""

log = structlog.get_logger("regard.http")


def make_app(
    registry: CollectorRegistry, unready: Callable[[], list[str]], playground: WSGIApplication | None = None
) -> WSGIApplication:
    """Return the application: /healthz is 200 while the process lives, /readyz 503 with the reasons in `unready`.

    What lies below /playground goes to `playground`, if there is one, and / leads there.
    """
    metrics = make_wsgi_app(registry)
    known = "/metrics, /healthz and /readyz" if playground is None else "/metrics, /healthz, /readyz and /playground"

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            body: Iterable[bytes] = metrics(environ, start_response)
            return body
        if path == "/healthz":
            return answer(start_response, "200 OK", ["ok"])
        if path == "/readyz":
            reasons = unready()
            return answer(start_response, "503 Service Unavailable" if reasons else "200 OK", reasons or ["ready"])
        if playground is not None and path.startswith("/playground"):
            return playground(environ, start_response)
        if playground is not None and path == "/":
            start_response("302 Found", [("Location", "playground"), ("Content-Length", "0")])
            return []
        return answer(start_response, "404 Not Found", [f"{known} are here"])

    def answer(start_response: StartResponse, status: str, lines: list[str]) -> Iterable[bytes]:
        start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [("\n".join(lines) + "\n").encode()]

    return app


class HttpServer:
    """Serves one application; it listens from the start and answers once started."""

    def __init__(self, host: str, port: int, app: WSGIApplication) -> None:
        """Bind the port. Raises `ConfigurationError`, naming it, if it is taken."""
        try:
            self._server = _Server((host, port), _Handler)
        except OSError as error:
            raise ConfigurationError(f"can't listen on HTTP port {port} of {host}: {error.strerror}") from error
        self._server.set_app(app)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="regard-http", daemon=True)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._server.server_port

    def start(self) -> None:
        """Answer requests from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Stop answering and free the port; whatever its thread does, within a few seconds."""
        if self._thread.is_alive():
            threading.Thread(target=self._server.shutdown, daemon=True).start()
            self._thread.join(STOP_S)
        self._server.server_close()


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[WSGIRequestHandler]) -> None:
        self.address_family = socket.getaddrinfo(*address, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        super().__init__(address, handler)

    def server_bind(self) -> None:
        """Bind without the base's look-up of the host's full name, which can hang on a broken resolver."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def handle_error(self, request: object, client_address: object) -> None:
        """Log a connection that ended before it was answered in one line: it may have sent nothing, or no HTTP."""
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            log.debug("connection ended", reason=str(error) or type(error).__name__)
        else:
            log.error("internal error", exc_info=error)


class HeadReader(io.RawIOBase):
    """What a connection sends: the head as a whole within `HEAD_TIMEOUT_S`, and what follows in the connection's time.

    Raises `TimeoutError`, also if some of the head still comes.
    """

    def __init__(self, connection: socket.socket, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._connection, self._clock = connection, clock
        self._patience = connection.gettimeout()
        self._deadline: float | None = clock() + HEAD_TIMEOUT_S

    def readable(self) -> bool:
        """Tell that it is."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Read what has come into `buffer`, and return how many bytes it is."""
        if self._deadline is not None:
            remaining_s = self._deadline - self._clock()
            if remaining_s <= 0:
                raise TimeoutError("the head did not arrive in time")
            self._connection.settimeout(remaining_s)
        return self._connection.recv_into(buffer)

    def end_head(self) -> None:
        """Give the connection its own time from now on."""
        self._deadline = None
        self._connection.settimeout(self._patience)


class AnswerWriter(io.BufferedIOBase):
    """Sends an answer to a connection, its first byte ahead of the rest where somebody asks whether it is still read.

    A client that has sent all that it will may be gone, or wait for its answer. The connection looks the same, until
    something is sent to it; every answer begins alike, so that a byte can go before it is known what the rest is.
    """

    def __init__(self, connection: socket.socket) -> None:
        super().__init__()
        self._connection = connection
        self._lock = threading.Lock()
        self._ahead = 0
        self._begun = False

    def writable(self) -> bool:
        """Tell that it is."""
        return True

    def write(self, buffer: ReadableBuffer, /) -> int:
        """Send all of `buffer` but what went ahead. Raises `ConnectionError` if the connection is gone.

        So it is if nothing of it is taken for as long as the connection is patient; a whole may take longer.
        """
        data = memoryview(buffer)
        with self._lock:
            rest, self._begun, self._ahead = data[self._ahead :], True, 0
            try:
                while rest:
                    rest = rest[self._connection.send(rest) :]
            except TimeoutError as error:
                raise ConnectionAbortedError("the other side reads no more") from error
        return len(data)

    def send_first_byte(self) -> None:
        """Send the first byte of the answer, unless it has begun; where nobody reads, the connection is reset by it."""
        with self._lock, suppress(OSError):
            if not self._begun:
                self._begun, self._ahead = True, len(_FIRST_BYTE)
                self._connection.sendall(_FIRST_BYTE)


class _Handler(WSGIRequestHandler):
    timeout = HEAD_TIMEOUT_S

    def setup(self) -> None:
        """Read the head with a deadline, the base's time-out being that of each read; write by an `AnswerWriter`."""
        super().setup()
        self.rfile.close()
        self._reader = HeadReader(self.connection)
        self.rfile = io.BufferedReader(self._reader)
        self.wfile = self._writer = AnswerWriter(self.connection)

    def parse_request(self) -> bool:
        """Parse the head, which has come when this returns."""
        parsed = super().parse_request()
        self._reader.end_head()
        return parsed

    def get_environ(self) -> dict[str, Any]:
        """Hand on the connection, and what writes to it, for those who want to know when the other side leaves."""
        return super().get_environ() | {"regard.connection": self.connection, "regard.answer": self._writer}

    def log_message(self, format: str, *args: object) -> None:
        """Write nothing: probes and scrapes come every few seconds."""

    def address_string(self) -> str:
        return str(self.client_address[0])

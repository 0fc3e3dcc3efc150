"""Who may ask: this page and programs, but no other page that a browser happens to show."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable
from http import HTTPStatus
from http.client import responses
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import grpc

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

BODY_TIMEOUT_S = 10.0
"""How long a whole body may take to arrive; a place for calls is held meanwhile."""
CLIENT_CLOSED_REQUEST = 499
"""nginx's status, for its log, of a request whose client has left; HTTP has none."""
_PIECE_BYTES = 1 << 16


class Refusal(Exception):  # noqa: N818 (it is an answer)
    """A request that goes no further: the HTTP status, and what gRPC would have said."""

    def __init__(self, status: int, code: grpc.StatusCode, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status = int(status)
        self.code = code
        self.message = message
        self.retry_after_s = retry_after_s

    @property
    def status_line(self) -> str:
        """The status and its name."""
        return f"{self.status} {responses.get(self.status, 'Client Closed Request')}"


def check_origin(environ: WSGIEnvironment, host: str) -> None:
    """Raise `Refusal` for what another site has sent, or a name that another could have led here.

    Browsers tell where a request comes from (Fetch Metadata; older ones by Origin). A page whose own
    domain is made to lead to this address would pass for ours (DNS rebinding), so that a name with dots is
    believed only if it is `host`, where the server was told to listen.
    """
    own = environ.get("HTTP_HOST", "")
    if not _is_known(own, host):
        raise Refusal(
            HTTPStatus.MISDIRECTED_REQUEST,
            grpc.StatusCode.PERMISSION_DENIED,
            "open the playground by this machine's address, or set the server's host to this name",
        )
    site, origin = environ.get("HTTP_SEC_FETCH_SITE"), environ.get("HTTP_ORIGIN")
    if site != "same-origin" if site else origin and _netloc(origin) != own:
        raise Refusal(HTTPStatus.FORBIDDEN, grpc.StatusCode.PERMISSION_DENIED, "only the playground's own page may ask")


def read_body(environ: WSGIEnvironment, most_bytes: int, clock: Callable[[], float] = time.monotonic) -> bytes:
    """Return the body, which must be JSON: a form of another site can't send that.

    Raises `Refusal`, also if the whole has not arrived within `BODY_TIMEOUT_S`, even where some of it still comes.
    """
    if environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower() != "application/json":
        raise _invalid(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "the body's type must be application/json")
    given = environ.get("CONTENT_LENGTH", "")
    if not (given.isascii() and given.isdigit()):
        raise _invalid(HTTPStatus.LENGTH_REQUIRED, "the body's length must be given")
    length = int(given[:20])
    if length > most_bytes:
        raise _invalid(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the request is of {length} bytes; at most {most_bytes} are taken"
        )
    try:
        return _arrived(environ, length, clock)
    except OSError as error:
        raise _invalid(
            HTTPStatus.REQUEST_TIMEOUT, f"the body did not arrive within {BODY_TIMEOUT_S:g} seconds; send it at once"
        ) from error


def _arrived(environ: WSGIEnvironment, length: int, clock: Callable[[], float]) -> bytes:
    """Return the next `length` bytes, fewer if the other side has left; raises `TimeoutError`."""
    body, connection = environ["wsgi.input"], environ["regard.connection"]
    patience, deadline = connection.gettimeout(), clock() + BODY_TIMEOUT_S
    found = bytearray()
    try:
        while len(found) < length:
            remaining_s = deadline - clock()
            if remaining_s <= 0:
                raise TimeoutError
            connection.settimeout(remaining_s)
            piece = body.read1(min(length - len(found), _PIECE_BYTES))
            if not piece:
                break
            found += piece
    finally:
        connection.settimeout(patience)
    return bytes(found)


def _invalid(status: HTTPStatus, message: str) -> Refusal:
    return Refusal(status, grpc.StatusCode.INVALID_ARGUMENT, message)


def _netloc(origin: str) -> str | None:
    """Return the host and port of an origin; None if it is none."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def _is_known(host: str, configured: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    try:
        ipaddress.ip_address(name)
    except ValueError:
        pass
    else:
        return True
    return bool(name) and ("." not in name or name.endswith(".localhost") or name == configured.lower())

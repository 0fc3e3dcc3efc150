"""From the HTTP port to the gRPC port: proto3 JSON in, one line of it for every event out."""

from __future__ import annotations

import json
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import grpc
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import MethodDescriptor

from regard.rpc.interceptor import RETRY_KEY
from regard.rpc.playground.guard import CLIENT_CLOSED_REQUEST, Refusal
from regard.v1 import (
    caption_pb2,
    classification_pb2,
    completion_pb2,
    model_pb2,
    question_answering_pb2,
    similarity_pb2,
    transcription_pb2,
    translation_pb2,
)

MAX_CALLS = 16
"""Calls at a time; each holds a thread."""
TIMEOUT_S = 60.0

_ASKED = (
    model_pb2,
    translation_pb2,
    caption_pb2,
    classification_pb2,
    question_answering_pb2,
    similarity_pb2,
    transcription_pb2,
    completion_pb2,
)
METHODS: dict[str, MethodDescriptor] = {
    f"{service.full_name}/{method.name}": method
    for module in _ASKED
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
"""What may be asked, by its name in a gRPC path."""

_STATUSES: dict[grpc.StatusCode, int] = {
    grpc.StatusCode.CANCELLED: CLIENT_CLOSED_REQUEST,
    grpc.StatusCode.UNKNOWN: HTTPStatus.INTERNAL_SERVER_ERROR,
    grpc.StatusCode.INVALID_ARGUMENT: HTTPStatus.BAD_REQUEST,
    grpc.StatusCode.DEADLINE_EXCEEDED: HTTPStatus.GATEWAY_TIMEOUT,
    grpc.StatusCode.NOT_FOUND: HTTPStatus.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS: HTTPStatus.CONFLICT,
    grpc.StatusCode.PERMISSION_DENIED: HTTPStatus.FORBIDDEN,
    grpc.StatusCode.RESOURCE_EXHAUSTED: HTTPStatus.TOO_MANY_REQUESTS,
    grpc.StatusCode.FAILED_PRECONDITION: HTTPStatus.BAD_REQUEST,
    grpc.StatusCode.ABORTED: HTTPStatus.CONFLICT,
    grpc.StatusCode.OUT_OF_RANGE: HTTPStatus.BAD_REQUEST,
    grpc.StatusCode.UNIMPLEMENTED: HTTPStatus.NOT_IMPLEMENTED,
    grpc.StatusCode.INTERNAL: HTTPStatus.INTERNAL_SERVER_ERROR,
    grpc.StatusCode.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS: HTTPStatus.INTERNAL_SERVER_ERROR,
    grpc.StatusCode.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
}
"""As https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto maps them."""


class Bridge:
    """Passes requests to the server's own gRPC port, some at a time."""

    def __init__(self, target: str) -> None:
        """Prepare a channel to `target`; nothing connects before the first request."""
        options = [
            ("grpc.enable_http_proxy", 0),
            ("grpc.enable_retries", 0),
            ("grpc.max_receive_message_length", -1),
        ]
        self._channel = grpc.insecure_channel(target, options)
        self._places = threading.BoundedSemaphore(MAX_CALLS)

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold one of the places for calls. Raises `Refusal` if all are taken."""
        if not self._places.acquire(blocking=False):
            raise Refusal(
                HTTPStatus.TOO_MANY_REQUESTS,
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"the playground answers {MAX_CALLS} requests at a time; try again",
                retry_after_s=1.0,
            )
        try:
            yield
        finally:
            self._places.release()

    def call(
        self, method: MethodDescriptor, body: bytes, client: str, connection: socket.socket, probe: Callable[[], None]
    ) -> Lines:
        """Send a request, for as long as `connection` stays; `client` names who asks.

        `probe` sends something to `connection`, which is reset by it if nobody is there any more. Raises
        `Refusal` for a body that is not the method's request, and if the call ends without an event.
        """
        request, response = map(message_factory.GetMessageClass, (method.input_type, method.output_type))
        try:
            message = json_format.Parse(body, request())
        except (json_format.ParseError, ValueError, RecursionError) as error:
            raise Refusal(
                HTTPStatus.BAD_REQUEST,
                grpc.StatusCode.INVALID_ARGUMENT,
                f"the body is no {method.input_type.name}: {error}"[:500],
            ) from error
        ask = self._channel.unary_stream(  # a method that answers once is a stream of one
            f"/{method.containing_service.full_name}/{method.name}", request.SerializeToString, response.FromString
        )
        metadata = (("x-client-id", f"playground {client}"),)
        return Lines(ask(message, timeout=TIMEOUT_S, metadata=metadata), connection, probe)

    def close(self) -> None:
        """Close the channel; what still runs is cancelled."""
        self._channel.close()


class Lines:
    """The events of a call, each as a line of JSON; closing it, or its browser's leaving, cancels the call."""

    def __init__(self, call: Any, connection: socket.socket, probe: Callable[[], None]) -> None:
        self._call = call
        self._ended, self._end = socket.socketpair()
        watched = (connection, probe)
        self._watch = threading.Thread(target=self._cancel_when_left, args=watched, name="regard-playground")
        self._watch.start()
        self._first: bytes | None = None

    def begin(self) -> None:
        """Wait for the first event. Raises `Refusal` if the call fails before."""
        try:
            self._first = line_of(next(self._call))
        except grpc.RpcError as error:
            raise refusal_of(error) from error

    def __iter__(self) -> Iterator[bytes]:
        if self._first is not None:
            yield self._first
        try:
            for event in self._call:
                yield line_of(event)
        except grpc.RpcError as error:
            yield error_line(refusal_of(error))

    def close(self) -> None:
        """End the call, if it hasn't."""
        self._call.cancel()
        self._end.close()
        self._watch.join()
        self._ended.close()

    def _cancel_when_left(self, connection: socket.socket, probe: Callable[[], None]) -> None:
        """Cancel the call once nobody reads its answer: the end of what a client sends may be but that."""
        if self._ends_before(connection, select.POLLIN):
            return
        probe()
        if not self._ends_before(connection, 0):
            self._call.cancel()

    def _ends_before(self, connection: socket.socket, event: int) -> bool:
        """Wait until this ends, which is True, or `event` or a reset comes from `connection`."""
        poll = select.poll()
        poll.register(self._ended, select.POLLIN)
        poll.register(connection, event)
        return self._ended.fileno() in dict(poll.poll())


def line_of(event: Any) -> bytes:
    """Return a message as a line of JSON, with the fields' own names, and with those that are at their default."""
    fields = json_format.MessageToDict(
        event, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def error_line(refusal: Refusal) -> bytes:
    """Return an error as a line of JSON."""
    error: dict[str, Any] = {"code": refusal.code.name, "message": refusal.message}
    if refusal.retry_after_s is not None:
        error["retry_after_s"] = refusal.retry_after_s
    return json.dumps({"error": error}, ensure_ascii=False).encode() + b"\n"


def refusal_of(error: Any) -> Refusal:
    """Return what a failed call means in HTTP."""
    waits = [float(value) / 1000 for key, value in error.trailing_metadata() or () if key == RETRY_KEY]
    return Refusal(
        _STATUSES[error.code()],
        error.code(),
        error.details() or error.code().name,
        retry_after_s=waits[0] if waits else None,
    )

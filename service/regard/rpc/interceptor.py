"""What every request passes: the door, the clock, the log, and the mapping of errors to codes."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, NoReturn, TypeAlias

import grpc
import structlog

from regard.errors import CallerStalledError, InvalidInputError, RegardError
from regard.metrics import Metrics, ModelLabels
from regard.rpc import wire
from regard.rpc.admission import Admission
from regard.rpc.call import Call, current_call
from regard.rpc.clients import client_of
from regard.rpc.received import LARGE_BYTES, LargeRequest, NoRoom, Received
from regard.rpc.status import answerable, status_code
from regard.rpc.undelivered import Undelivered

LONG_BYTES = 1 << 16
"""Weights that take longer to copy than the way to a thread."""
MAX_DETAIL_BYTES = 1000
"""A status travels in a header, and HTTP/2 peers refuse long ones."""
RETRY_KEY = "grpc-retry-pushback-ms"
"""Where retries of gRPC look for how long to wait:
https://github.com/grpc/proposal/blob/master/A6-client-retries.md#pushback
"""

_TASKS = {
    "regard.v1.TranslationService": "translation",
    "regard.v1.CaptionService": "captioning",
    "regard.v1.ClassificationService": "classification",
    "regard.v1.TranscriptionService": "transcription",
    "regard.v1.QuestionAnsweringService": "question_answering",
    "regard.v1.SimilarityService": "similarity",
    "regard.v1.CompletionService": "completion",
    "regard.v1.AttributionService": "attribution",
}

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
log = structlog.get_logger("regard.rpc")


class _Unreadable:
    """Stands for a request whose bytes are not a message."""


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every handler.

    Servicers raise; here a `RegardError` becomes the status of its code and anything else
    INTERNAL. Requests of `regard.*` services pass the door and are counted; health and reflection
    answer whatever happens. Of a handler that takes a stream of requests (reflection's) only the reading is wrapped.
    """

    def __init__(
        self,
        admission: Admission,
        metrics: Metrics,
        received: Received,
        undelivered: Undelivered,
        *,
        max_stall_s: float,
    ) -> None:
        self._admission = admission
        self._received = received
        self._metrics = metrics
        self._undelivered = undelivered
        self._max_stall_s = max_stall_s
        self._wrapped: dict[str, Handler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Return the handler of a method, wrapped; None, which means UNIMPLEMENTED, stays None."""
        method = handler_call_details.method
        if self._received.full and method.startswith("/regard."):
            return self._refusing(method)
        if method in self._wrapped:
            return self._wrapped[method]
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        wrapped = _with_readable_requests(handler) if handler.request_streaming else self._wrap(method, handler)
        self._wrapped[method] = wrapped
        return wrapped

    def _wrap(self, method: str, handler: Handler) -> Handler:
        read = _reader(handler.request_deserializer, self._received)
        write = _writer(handler.response_serializer)
        servicer: Any = handler.unary_stream if handler.response_streaming else handler.unary_unary
        if not handler.response_streaming:

            async def answer(request: object, context: Context) -> object:
                async with self._serving(method, request, context):
                    response = await _written(await servicer(_message(request), context))
                    current_call.get().held.add(_held_by(response))
                    return response

            return grpc.unary_unary_rpc_method_handler(answer, read, write)

        # A coroutine that writes, not a generator: a caller's leaving is then felt in this task,
        # which closes the servicer's generator before it ends.
        async def stream(request: object, context: Context) -> None:
            async with self._serving(method, request, context):
                events: AsyncGenerator[object, None] = servicer(_message(request), context)
                async with aclosing(events):
                    async for event in events:
                        await self._deliver(await _written(event), context)

        return grpc.unary_stream_rpc_method_handler(stream, read, write)

    def _refusing(self, method: str) -> Handler:
        """Return a handler that refuses a call before its request is read, which one of a single request can't."""

        async def refuse(requests: AsyncIterator[object], context: Context) -> None:
            async with self._serving(method, NoRoom(), context):
                pass

        return grpc.stream_stream_rpc_method_handler(refuse)

    @asynccontextmanager
    async def _serving(self, method: str, request: object, context: Context) -> AsyncIterator[None]:
        service = method.strip("/").partition("/")[0]
        counted = service.startswith("regard.")
        client = client_of(context.invocation_metadata() or (), context.peer())
        held, labels = self._undelivered.account(), ModelLabels(task=_TASKS.get(service, ""))
        context.add_done_callback(lambda _: held.close())  # type: ignore[arg-type]  # the stubs' own class, no function
        call = Call(method, held, _deadline_of(context), client, labels=labels)
        token = current_call.set(call)
        code, refusal = grpc.StatusCode.OK, None
        try:
            _check_read(request)
            if isinstance(request, NoRoom):
                refused = self._received.refusal()
                self._metrics.inputs_ended(call.labels, refused.code_name)  # one at least: it wasn't read
                raise refused
            if counted:
                in_flight = self._metrics.requests_in_flight.labels(call.labels.task)
                with self._admission.admit(), in_flight.track_inprogress():
                    yield
            else:
                yield
        except asyncio.CancelledError:
            code = grpc.StatusCode.DEADLINE_EXCEEDED if call.expired else grpc.StatusCode.CANCELLED
            raise
        except grpc.aio.AbortError:
            code = context.code() or grpc.StatusCode.UNKNOWN
            raise
        except Exception as error:
            refusal = answerable(error)
            code = status_code(refusal)
        finally:
            current_call.reset(token)
            if isinstance(request, LargeRequest):
                request.let_go()
            if counted:
                self._ended(call, code)
        if refusal is not None:
            await _abort(context, refusal)  # only now, so that whoever has the status is counted

    async def _deliver(self, response: object, context: Context) -> None:
        """Write a message of a stream. Raises `CallerStalledError` if its caller takes nothing for too long."""
        held, num_bytes = current_call.get().held, _held_by(response)
        held.add(num_bytes)
        try:
            async with asyncio.timeout(self._max_stall_s):
                await context.write(response)
        except TimeoutError:
            raise CallerStalledError(
                f"nothing of this stream was read for {self._max_stall_s:g} s, the longest that it may lie "
                "(max_stall_s); read it while it comes, or ask for less attention"
            ) from None
        held.add(-num_bytes)

    def _ended(self, call: Call, code: grpc.StatusCode) -> None:
        seconds = time.monotonic() - call.started
        self._metrics.request_ended(call.labels, code.name, seconds)
        log.debug(
            "request",
            method=call.method,
            model=call.labels.model,
            version=call.labels.version,
            code=code.name,
            inputs=call.inputs,
            failures=call.failures,
            seconds=round(seconds, 6),
        )


def _with_readable_requests(handler: Handler) -> Handler:
    """Return a handler of streams both ways whose call ends with the status of an unreadable request at the first."""
    servicer: Any = handler.stream_stream

    async def read(requests: AsyncIterator[object]) -> AsyncIterator[object]:
        async for request in requests:
            _check_read(request)
            yield request

    async def converse(requests: AsyncIterator[object], context: Context) -> AsyncIterator[object]:
        try:
            async for response in servicer(read(requests), context):
                yield response
        except InvalidInputError as error:
            await _abort(context, error)

    return grpc.stream_stream_rpc_method_handler(
        converse, _reader(handler.request_deserializer), handler.response_serializer
    )


def _check_read(request: object) -> None:
    if isinstance(request, _Unreadable):
        raise InvalidInputError("the request's bytes are not its message, or hold text that is not UTF-8")


def _reader(deserialize: Callable[[bytes], Any] | None, received: Received | None = None) -> Callable[[bytes], Any]:
    """Return what reads requests; where they are `received`, a large one is counted there for as long as it is held."""

    def read(data: bytes) -> Any:
        counts = received is not None and len(data) >= LARGE_BYTES
        if received is not None and counts and not received.has_room(len(data)):
            return NoRoom()
        try:
            message = data if deserialize is None else deserialize(data)
        except Exception:
            return _Unreadable()
        return received.hold(message, len(data)) if received is not None and counts else message

    return read


def _message(request: object) -> object:
    return request.message if isinstance(request, LargeRequest) else request


def _writer(serialize: Callable[[Any], bytes] | None) -> Callable[[Any], bytes]:
    def write(response: Any) -> bytes:
        return response if serialize is None or isinstance(response, bytes) else serialize(response)

    return write


async def _written(response: Any) -> object:
    """Return a response as it is, or as bytes if weights belong in it; many are written away from the event loop."""
    weights = current_call.get().weights
    if not weights:
        return response
    if weights.num_bytes < LONG_BYTES:
        return wire.serialize(response, weights)
    return await asyncio.to_thread(wire.serialize, response, weights)


def _held_by(response: object) -> int:
    """Return the bytes of a message that are worth counting: of one with weights."""
    return len(response) if isinstance(response, bytes) else 0


def _deadline_of(context: Context) -> float | None:
    remaining = context.time_remaining()
    return None if remaining is None else time.monotonic() + remaining


async def _abort(context: Context, error: RegardError) -> NoReturn:
    trailer = () if error.retry_after_s is None else ((RETRY_KEY, str(math.ceil(error.retry_after_s * 1000))),)
    details = error.message.encode()[:MAX_DETAIL_BYTES].decode(errors="ignore")
    await context.abort(status_code(error), details, trailer)

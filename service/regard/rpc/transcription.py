"""`regard.v1.TranscriptionService`: sounds to features, window by window through the worker, to texts."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from regard.errors import RegardError
from regard.manifest import Task
from regard.rpc import convert
from regard.rpc.deltas import frames_of
from regard.rpc.inputs import gather, merge
from regard.rpc.interceptor import Context
from regard.rpc.resources import Resources
from regard.rpc.speech import AnyTranscribeRequest, speech_of
from regard.rpc.windows import TranscribeOrder, Windows
from regard.v1 import generation_pb2, transcription_pb2, transcription_pb2_grpc


class TranscriptionService(transcription_pb2_grpc.TranscriptionServiceServicer):
    """Transcribes with the models of a catalog."""

    def __init__(self, resources: Resources) -> None:
        self._windows = Windows(resources)

    async def Transcribe(  # noqa: N802
        self, request: transcription_pb2.TranscribeRequest, context: Context
    ) -> transcription_pb2.TranscribeResponse:
        """Return a result for each sound."""
        order = await self._order(request, streaming=False)
        outcomes = await gather(self._windows.run(order, sound, field) for field, sound in _fields(request))
        return transcription_pb2.TranscribeResponse(
            model=convert.model_version(order.generate.model.manifest),
            results=[
                transcription_pb2.TranscriptionResult(failure=convert.failure(outcome))
                if isinstance(outcome, RegardError)
                else transcription_pb2.TranscriptionResult(transcription=outcome)
                for outcome in outcomes
            ],
        )

    async def StreamTranscribe(  # noqa: N802
        self, request: transcription_pb2.StreamTranscribeRequest, context: Context
    ) -> AsyncGenerator[transcription_pb2.StreamTranscribeResponse, None]:
        """Yield the tokens of every sound as they are made, and each sound's result as its last event."""
        order = await self._order(request, streaming=True)
        streams = [self._windows.stream(order, sound, field) for field, sound in _fields(request)]
        respond, model = (
            transcription_pb2.StreamTranscribeResponse,
            convert.model_version(order.generate.model.manifest),
        )
        async with aclosing(merge(streams)) as events:
            async for index, event in events:
                if isinstance(event, RegardError):
                    yield respond(input_index=index, failure=convert.failure(event), model=model)
                elif isinstance(event, generation_pb2.TokenDelta):
                    yield respond(input_index=index, delta=event)
                else:
                    yield respond(input_index=index, transcription=event, model=model)

    async def _order(self, request: AnyTranscribeRequest, *, streaming: bool) -> TranscribeOrder:
        order = await self._windows.generations.order(
            request,
            Task.TRANSCRIPTION,
            inputs=len(request.inputs),
            field="inputs",
            streaming=streaming,
            beginning=lambda manifest: speech_of(request, manifest).options,
            align_att_frames=frames_of(request)
            if isinstance(request, transcription_pb2.StreamTranscribeRequest)
            else None,
        )
        return self._windows.order(order, speech_of(request, order.model.manifest))


def _fields(request: AnyTranscribeRequest) -> list[tuple[str, transcription_pb2.AudioInput]]:
    return [(f"inputs[{index}]", sound) for index, sound in enumerate(request.inputs)]

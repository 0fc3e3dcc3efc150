"""One sound, window by window: each is a generation of its own, and together they are a transcription."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from regard.audio.codec import AudioCodec
from regard.audio.frames import Frames
from regard.audio.segments import SpokenSegment, cut
from regard.errors import InvalidInputError
from regard.rpc.generation import GenerateOrder, Generations, Product
from regard.rpc.reading import SoundReading
from regard.rpc.resources import Resources
from regard.rpc.speech import Speech
from regard.v1 import generation_pb2, transcription_pb2

IN_FLIGHT = 8
"""The windows of one sound that are heard side by side; the others wait, and hold no features."""

FloatArray = npt.NDArray[np.float32]
Event = generation_pb2.TokenDelta | transcription_pb2.Transcription


@dataclass(frozen=True, slots=True)
class TranscribeOrder:
    """What a request asks of each of its sounds."""

    generate: GenerateOrder
    speech: Speech

    def sharing(self, windows: int) -> TranscribeOrder:
        """Return what is asked of each of a sound's windows, which share its budget of attention."""
        attention = self.generate.attention
        if attention is None:
            return self
        shared = replace(
            attention,
            max_bytes=attention.max_bytes // windows,
            max_read_bytes=attention.max_read_bytes // min(windows, IN_FLIGHT),
        )
        return replace(self, generate=replace(self.generate, attention=shared))

    def behind(self, first: Product) -> TranscribeOrder:
        """Return what is asked of the windows after the first: to be in the language that was found there."""
        if not self.speech.choices:
            return self
        options = self.generate.options
        found = (first.token_ids[0], *options.prefix_token_ids[1:])
        chosen = replace(options, prefix_token_ids=found, prefix_choices=())
        return replace(self, generate=replace(self.generate, options=chosen))


@dataclass(frozen=True, slots=True)
class _Heard:
    """What the model made of one window, and where that is."""

    product: Product
    frames: Frames


class Windows:
    """Runs the sounds of a transcription service."""

    def __init__(self, resources: Resources) -> None:
        self.resources = resources
        self.generations = Generations(resources)

    async def run(
        self, order: TranscribeOrder, sound: transcription_pb2.AudioInput, field: str
    ) -> transcription_pb2.Transcription:
        """Return the transcription of a sound: its first window tells the language, the others go side by side."""
        with self.resources.one_input(order.generate):
            codec, samples, count = await self._read(order, sound, field)
            order = order.sharing(count)
            first = await self._hear(order, codec, samples, 0, field)
            order, places = order.behind(first.product), asyncio.Semaphore(IN_FLIGHT)

            async def hear(window: int) -> _Heard:
                async with places:
                    return await self._hear(order, codec, samples, window, field)

            try:
                async with asyncio.TaskGroup() as group:
                    others = [group.create_task(hear(window)) for window in range(1, count)]
            except ExceptionGroup as failures:
                raise failures.exceptions[0] from failures
            return _transcription(order, [first, *(other.result() for other in others)])

    async def stream(
        self, order: TranscribeOrder, sound: transcription_pb2.AudioInput, field: str
    ) -> AsyncGenerator[Event, None]:
        """Yield each token of one sound as it is made, one window after the other, then the whole."""
        with self.resources.one_input(order.generate):
            codec, samples, count = await self._read(order, sound, field)
            order, heard = order.sharing(count), list[_Heard]()
            for window in range(count):
                reading = await self._encode(order, codec, samples, window, field)
                events = self.generations.events(order.generate, reading, field, first=window == 0)
                async with aclosing(events):
                    async for event in events:
                        if isinstance(event, Product):
                            heard.append(_Heard(event, reading.encoded.frames))
                        else:
                            yield event
                order = order.behind(heard[0].product)
            yield _transcription(order, heard)

    async def _read(
        self, order: TranscribeOrder, sound: transcription_pb2.AudioInput, field: str
    ) -> tuple[AudioCodec, FloatArray, int]:
        """Return a sound's samples and how many windows they make."""
        codec = order.generate.model.audio
        if codec is None:
            raise InvalidInputError(f"{field}: model {order.generate.model.manifest.name} takes no sound", field=field)
        samples = await self.resources.read_sound(order.generate, codec, sound, field)
        return codec, samples, codec.windows(samples)

    async def _encode(
        self, order: TranscribeOrder, codec: AudioCodec, samples: FloatArray, window: int, field: str
    ) -> SoundReading:
        return await self.resources.read(
            order.generate, lambda: SoundReading(codec.encode(samples, window)), field, codec.spec.positions
        )

    async def _hear(
        self, order: TranscribeOrder, codec: AudioCodec, samples: FloatArray, window: int, field: str
    ) -> _Heard:
        reading = await self._encode(order, codec, samples, window, field)
        return _Heard(await self.generations.generate(order.generate, reading, field), reading.encoded.frames)


def _transcription(order: TranscribeOrder, heard: Sequence[_Heard]) -> transcription_pb2.Transcription:
    return transcription_pb2.Transcription(
        text="".join(one.product.best.text for one in heard),
        language=order.speech.language_of(heard[0].product.token_ids[0]) if heard[0].product.token_ids else "",
        duration_s=heard[-1].frames.end_s,
        segments=[
            transcription_pb2.TranscriptionSegment(start_s=segment.start_s, end_s=segment.end_s, text=segment.text)
            for one in heard
            for segment in _segments(order, one)
        ],
        windows=[_window(one.product, one.frames) for one in heard],
    )


def _segments(order: TranscribeOrder, heard: _Heard) -> list[SpokenSegment]:
    text, frames, times = heard.product.best.text, heard.frames, order.speech.times
    if times is None:
        return [SpokenSegment(frames.start_s, frames.end_s, text)] if text else []
    token_ids, codec = heard.product.token_ids, order.generate.codec
    ends = accumulate((segment.end for segment in codec.segments_of(token_ids)[1]), max)
    return cut(token_ids, list(ends), text, times, (frames.start_s, frames.end_s))


def _window(product: Product, frames: Frames) -> transcription_pb2.TranscriptionWindow:
    return transcription_pb2.TranscriptionWindow(
        start_s=frames.start_s,
        end_s=frames.end_s,
        text=product.best.text,
        finish_reason=product.best.finish_reason,
        target_tokens=product.best.target_tokens,
        log_probability=product.best.log_probability,
        score=product.best.score,
        tokens=product.best.tokens,
        attention=product.attention,
        further_sequences=product.further,
        timing=product.timing,
    )

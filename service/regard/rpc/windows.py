"""One sound, window by window: each is a generation of its own, and together they are a transcription."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from regard.audio.codec import AudioCodec
from regard.audio.frames import Frames
from regard.audio.segments import SpokenSegment, cut
from regard.errors import EngineError
from regard.rpc.generation import GenerateOrder, Generations, Product, check_logprobs
from regard.rpc.patience import patiently
from regard.rpc.reading import SoundReading
from regard.rpc.resources import Resources
from regard.rpc.room import Room
from regard.rpc.speech import Speech
from regard.v1 import generation_pb2, transcription_pb2

IN_FLIGHT = 8
"""The windows of one sound that are heard side by side; the others wait, and hold no features."""

T = TypeVar("T")
FloatArray = npt.NDArray[np.float32]
Event = generation_pb2.TokenDelta | transcription_pb2.Transcription


@dataclass(frozen=True, slots=True)
class TranscribeOrder:
    """What a request asks of each of its sounds."""

    generate: GenerateOrder
    speech: Speech
    codec: AudioCodec
    longest: int
    """The most samples that a sound may have, at the model's rate."""
    room: Room
    """For the samples of all sounds that are held."""

    def sharing(self, windows: int) -> TranscribeOrder:
        """Return what is asked of each of a sound's windows, which share its budgets of attention."""
        attention, beside = self.generate.attention, min(windows, IN_FLIGHT)
        if attention is not None:
            attention = replace(
                attention,
                max_bytes=attention.max_bytes // windows,
                max_read_bytes=attention.max_read_bytes // beside,
            )
        max_tap_bytes = self.generate.max_tap_bytes // beside
        return replace(self, generate=replace(self.generate, attention=attention, max_tap_bytes=max_tap_bytes))

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

    def order(self, generate: GenerateOrder, speech: Speech) -> TranscribeOrder:
        """Return what is asked of each sound; every codec thread can read one while as many as the longest are held."""
        codec, settings = generate.model.audio, self.resources.settings
        if codec is None:
            raise EngineError(f"package {generate.model.label} does not say how to read sound")
        longest = math.ceil(settings.max_audio_s * codec.spec.sampling_rate)
        return TranscribeOrder(generate, speech, codec, longest, Room((1 + settings.codec_threads) * longest))

    async def run(
        self, order: TranscribeOrder, sound: transcription_pb2.AudioInput, field: str
    ) -> transcription_pb2.Transcription:
        """Return the transcription of a sound."""
        with self.resources.one_input(order.generate):
            async with self._held(order, sound, field) as samples:
                return await self._transcribe(order, samples, field)

    async def stream(
        self, order: TranscribeOrder, sound: transcription_pb2.AudioInput, field: str
    ) -> AsyncGenerator[Event, None]:
        """Yield each token of one sound as it is made, one window after the other, then the whole."""
        with self.resources.one_input(order.generate):
            async with self._held(order, sound, field) as samples:
                count = order.codec.windows(samples)
                self._check(order, count)
                order, heard = order.sharing(count), list[_Heard]()
                for window in range(count):
                    begin = partial(self._begin, order, samples, window, field)
                    frames, events = await (patiently(begin) if window else begin())
                    async with aclosing(events):
                        async for event in events:
                            if isinstance(event, Product):
                                heard.append(_Heard(event, frames))
                            else:
                                yield event
                    order = order.behind(heard[0].product)
                yield await self.resources.offload(_transcription, order, heard)

    @asynccontextmanager
    async def _held(
        self, order: TranscribeOrder, sound: transcription_pb2.AudioInput, field: str
    ) -> AsyncIterator[FloatArray]:
        """Yield a sound's samples once there is room for the longest; they keep their own until the body ends."""
        await order.room.take(order.longest)
        taken = order.longest
        try:
            samples = await self.resources.read_sound(order.generate, order.codec, sound, field)
            spare = max(taken - len(samples), 0)
            order.room.give_back(spare)
            taken -= spare
            yield samples
        finally:
            order.room.give_back(taken)

    async def _transcribe(
        self, order: TranscribeOrder, samples: FloatArray, field: str
    ) -> transcription_pb2.Transcription:
        """Return what is said in a sound: its first window tells the language, the others go side by side."""
        count = order.codec.windows(samples)
        self._check(order, count * order.generate.call.inputs)
        order = order.sharing(count)
        first = await self._hear(order, samples, 0, field)
        order, places = order.behind(first.product), asyncio.Semaphore(IN_FLIGHT)

        async def hear(window: int) -> _Heard:
            async with places:
                return await patiently(partial(self._hear, order, samples, window, field))

        try:
            async with asyncio.TaskGroup() as group:
                others = [group.create_task(hear(window)) for window in range(1, count)]
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from failures
        heard = [first, *(other.result() for other in others)]
        return await self.resources.offload(_transcription, order, heard)

    def _check(self, order: TranscribeOrder, windows: int) -> None:
        """Raise `InvalidInputError` if what was asked for of so many windows is too much for one response."""
        check_logprobs(order.generate.options, windows, self.resources.settings.max_message_bytes)

    async def _encode(self, order: TranscribeOrder, samples: FloatArray, window: int, field: str) -> SoundReading:
        codec = order.codec
        return await self.resources.read(
            order.generate, lambda: SoundReading(codec.encode(samples, window)), field, codec.spec.positions
        )

    async def _begin(
        self, order: TranscribeOrder, samples: FloatArray, window: int, field: str
    ) -> tuple[Frames, AsyncGenerator[generation_pb2.TokenDelta | Product, None]]:
        """Return where a window is, and its events, once the first is there: a window that is refused has none."""
        reading = await self._encode(order, samples, window, field)
        events = self.generations.events(order.generate, reading, field, first=window == 0)
        return reading.encoded.frames, _chained(await anext(events), events)

    async def _hear(self, order: TranscribeOrder, samples: FloatArray, window: int, field: str) -> _Heard:
        reading = await self._encode(order, samples, window, field)
        return _Heard(await self.generations.generate(order.generate, reading, field), reading.encoded.frames)


async def _chained(first: T, others: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
    async with aclosing(others):
        yield first
        async for other in others:
            yield other


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

"""What the services share: the models, the limits, the threads for text, and the metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from regard.attention.selection import select
from regard.audio.codec import AudioCodec
from regard.audio.sound import AudioLimits, read_file, read_samples
from regard.catalog import Catalog, Model
from regard.config import ServerSettings
from regard.engine.interventions import NO_INTERVENTIONS, Interventions
from regard.engine.request import Classification, ClassifyRequest, GenerateRequest
from regard.engine.source import Source, Unread
from regard.errors import (
    DeadlineExceededError,
    EngineError,
    InvalidInputError,
    RegardError,
    RequestCancelledError,
    UnavailableError,
)
from regard.manifest import Task
from regard.metrics import Metrics
from regard.rpc import convert
from regard.rpc.attention import AttentionOrder
from regard.rpc.call import Call, current_call
from regard.rpc.interventions import InterventionOrder
from regard.rpc.reading import ImageReading, Reading, TextReading
from regard.rpc.status import answerable
from regard.rpc.undelivered import Undelivered
from regard.text.codec import TextCodec
from regard.v1 import (
    attribution_pb2,
    caption_pb2,
    classification_pb2,
    completion_pb2,
    question_answering_pb2,
    similarity_pb2,
    transcription_pb2,
    translation_pb2,
)
from regard.vision.picture import ImageLimits

READ_FOR_EACH_BYTE = 32
"""How many bytes of weights are read at most, over a request, for each byte of attention in a response."""
BRIEF_CHARACTERS = 500
"""A text so short is read at once: its tokens are found sooner (20 to 75 us) than a thread is reached."""
RUNS_AHEAD = 2
"""The batches of one request that are filled at once: one that runs, and one that waits to."""

P = ParamSpec("P")
T = TypeVar("T")
AnyReading = TypeVar("AnyReading", bound=Reading)
AnyRequest = (
    translation_pb2.TranslateRequest
    | translation_pb2.StreamTranslateRequest
    | caption_pb2.CaptionRequest
    | caption_pb2.StreamCaptionRequest
    | classification_pb2.ClassifyRequest
    | completion_pb2.CompleteRequest
    | completion_pb2.StreamCompleteRequest
    | transcription_pb2.TranscribeRequest
    | transcription_pb2.StreamTranscribeRequest
    | classification_pb2.ClassifyTokensRequest
    | question_answering_pb2.AnswerRequest
    | similarity_pb2.CompareRequest
)
PlainRequest = (
    attribution_pb2.AttributeClassRequest
    | attribution_pb2.AttributeTranslationRequest
    | attribution_pb2.AttributeCaptionRequest
    | translation_pb2.ScoreTranslationRequest
)
"""Those that ask for no attention."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a request asks of each of its inputs, whatever its task."""

    model: Model
    call: Call
    truncate: bool
    attention: AttentionOrder | None

    @property
    def tap_names(self) -> frozenset[str]:
        """The taps that the engine is asked for; none without attention."""
        return self.attention.selection.tap_names if self.attention else frozenset()

    def foreseen(self, positions: int) -> ClassifyRequest | GenerateRequest:
        """Return what the engine will be asked for, as far as it is known before the source is read."""
        return ClassifyRequest(
            Unread(positions), deadline=self.call.deadline, client=self.call.client, priority=self.call.priority
        )


@dataclass(frozen=True, slots=True)
class Resources:
    """Everything that a servicer works with; `threads` is where whatever takes more than a moment runs."""

    settings: ServerSettings
    catalog: Catalog
    metrics: Metrics
    threads: Executor
    undelivered: Undelivered

    def order(
        self,
        request: AnyRequest | PlainRequest,
        task: Task,
        *,
        inputs: int,
        field: str,
        sharing: int,
        sequences: int = 1,
        truncate: bool = False,
    ) -> Order:
        """Check what concerns all inputs of a request, and note its model as the running call's.

        `field` names the inputs; `sharing` of them share one response and its budget of attention, all of them
        what may be read for it, and the `sequences` of each input share the input's. Raises what
        `Catalog.resolve` and `select` do, `InvalidInputError` for no inputs or too many, `UnavailableError` while the
        model loads, and `QueueFullError` where not even an input without any work would find room: when most
        requests are refused, refusing must cost little. And as `Undelivered.check` does, if it asks for attention.
        """
        call = current_call.get()
        call.inputs = inputs
        call.priority = convert.priority_of(request.priority)
        with self._refusing(call):
            model = self.catalog.resolve(request.model_name, request.model_version, task)
        call.labels = model.labels
        if not 1 <= inputs <= self.settings.max_inputs:
            raise InvalidInputError(
                f"{field}: {inputs} given; a request takes from 1 to {self.settings.max_inputs}",
                field=field,
            )
        with self._refusing(call):
            if not model.worker.ready:
                raise UnavailableError(f"model {model.label} is not ready; try again, or elsewhere")
            model.worker.check_room(
                ClassifyRequest(Unread(0), deadline=call.deadline, client=call.client, priority=call.priority)
            )
        attention = None
        if not isinstance(request, PlainRequest) and request.HasField("attention"):
            with self._refusing(call):
                self.undelivered.check()
            selection = select(convert.choice_of(request.attention), model.manifest)
            allowed = self.settings.max_attention_bytes // sharing
            max_bytes = min(request.attention.max_bytes or allowed, allowed) // sequences
            max_read_bytes = READ_FOR_EACH_BYTE * self.settings.max_attention_bytes // (inputs * sequences)
            attention = AttentionOrder(selection, max_bytes, max_read_bytes, call.weights)
        return Order(model, call, truncate, attention)

    @contextmanager
    def _refusing(self, call: Call) -> Iterator[None]:
        """Count all inputs of the call as refused where the body raises."""
        try:
            yield
        except RegardError as error:
            call.failures = call.inputs
            self.metrics.inputs_ended(call.labels, error.code_name, call.inputs)
            raise

    @contextmanager
    def one_input(self, order: Order) -> Iterator[None]:
        """Count what the body does for one input; whatever it raises is made fit for the caller."""
        code = "OK"
        try:
            yield
        except Exception as error:
            answer = answerable(error)
            code = answer.code_name
            order.call.failures += 1
            if answer is error:
                raise
            raise answer from error
        except BaseException:
            code = DeadlineExceededError.code_name if order.call.expired else RequestCancelledError.code_name
            raise
        finally:
            self.metrics.inputs_ended(order.call.labels, code)

    async def read_text(self, order: Order, text: str, field: str, *, templated: bool = False) -> Reading:
        """Return the tokens of `text`, found in the threads if it is long; a prompt may be `templated`.

        Raises `InvalidInputError` for what the model can't take, and at once `QueueFullError` if there is
        no room for it.
        """
        codec = self._codec(order, field)

        def work() -> Reading:
            if order.model.manifest.task is Task.COMPLETION:
                return TextReading(text, codec.encode_prompt(text, templated=templated, field=field))
            return TextReading(text, codec.encode(text, truncate=order.truncate, field=field))

        return await self.read(order, work, field, codec.foresee(text), brief=len(text) <= BRIEF_CHARACTERS)

    async def read_pair(self, order: Order, text: str, pair: str, field: str, pair_field: str) -> Reading:
        """Return the tokens of two texts together, as `read_text` does."""
        codec = self._codec(order, field)

        def work() -> Reading:
            encoded = codec.encode_pair(text, pair, truncate=order.truncate, field=field, pair_field=pair_field)
            return TextReading(text, encoded)

        brief = len(text) + len(pair) <= BRIEF_CHARACTERS
        return await self.read(order, work, field, codec.foresee(text, pair), brief=brief)

    async def read_windows(
        self,
        order: Order,
        question: str,
        context: str,
        window_tokens: int,
        overlap_tokens: int | None,
        field: str,
    ) -> list[TextReading]:
        """Return a question with each window of its context, in the threads. Raises as `TextCodec.windows` does."""
        codec = self._codec(order, field)

        def work() -> list[TextReading]:
            windows = codec.windows(
                question, context, window_tokens=window_tokens, overlap_tokens=overlap_tokens, field=field
            )
            readings = [TextReading(question, window) for window in windows]
            if order.attention:
                order.attention.check(readings[0].passage, field)
            return readings

        with order.model.worker.expecting(order.foreseen(codec.foresee(question, context))):
            return await self.offload(work)

    async def read_image(self, order: Order, data: bytes, field: str) -> Reading:
        """Return the pixel values of an image file, in the threads. Raises as `read_text` does."""
        codec = order.model.images
        if codec is None:
            raise InvalidInputError(f"{field}: model {order.model.manifest.name} takes text, not images", field=field)
        limits = ImageLimits(self.settings.max_image_bytes, self.settings.max_image_pixels)

        def work() -> Reading:
            return ImageReading(codec.encode(data, limits, field), codec.spec)

        return await self.read(order, work, field, codec.spec.positions)

    async def read_sound(
        self, order: Order, codec: AudioCodec, sound: transcription_pb2.AudioInput, field: str
    ) -> npt.NDArray[np.float32]:
        """Return the samples of a sound at the model's rate, in the threads.

        Raises as `read_file` does, and at once `QueueFullError` if there is no room for it.
        """
        limits, rate = AudioLimits(self.settings.max_audio_bytes, self.settings.max_audio_s), codec.spec.sampling_rate
        kind = sound.WhichOneof("kind")
        if kind is None:
            raise InvalidInputError(f"{field} is empty; give a file or samples", field=field)
        with order.model.worker.expecting(order.foreseen(codec.spec.positions)):
            if kind == "file":
                return await self.offload(read_file, sound.file, rate, limits, f"{field}.file")
            given, field = sound.samples, f"{field}.samples"
            return await self.offload(read_samples, given.samples, given.sampling_rate, rate, limits, field)

    def places(self, model: Model) -> asyncio.Semaphore:
        """Return places for the runs of one request: enough to fill every instance, and never the queue."""
        engine = self.settings.engine
        return asyncio.Semaphore(min(RUNS_AHEAD * model.worker.instances * engine.max_rows, engine.max_queue))

    async def interventions(self, asked: InterventionOrder | None, reading: Reading, field: str) -> Interventions:
        """Return what is changed in the model for one input, made in the threads if anything is."""
        return NO_INTERVENTIONS if asked is None else await self.offload(asked.of, reading, field)

    async def answer(
        self,
        order: Order,
        source: Source,
        taps: frozenset[str] = frozenset(),
        interventions: Interventions = NO_INTERVENTIONS,
    ) -> Classification:
        """Return what the model answers in one step, with the taps that `order` asks for and `taps`."""
        request = ClassifyRequest(
            source=source,
            taps=order.tap_names | taps,
            deadline=order.call.deadline,
            client=order.call.client,
            priority=order.call.priority,
            interventions=interventions,
        )
        result = await order.model.worker.run(request)
        if not isinstance(result, Classification):
            raise EngineError("the model gave something else than an answer in one step")
        return result

    def _codec(self, order: Order, field: str) -> TextCodec:
        codec = order.model.text
        if codec is None or not order.model.manifest.reads_text:
            raise InvalidInputError(f"{field}: model {order.model.manifest.name} takes images, not text", field=field)
        return codec

    async def read(
        self, order: Order, work: Callable[[], AnyReading], field: str, foreseen_positions: int, *, brief: bool = False
    ) -> AnyReading:
        """Return what `work` reads, in the threads unless it is `brief` and nobody asks for attention.

        Raises `InvalidInputError` if its attention is over the budget. If there is no room for what is
        foreseen, it is not read at all: raises what `Worker.expecting` does.
        """

        def checked() -> AnyReading:
            reading = work()
            if order.attention:
                order.attention.check(reading.passage, field)
            return reading

        with order.model.worker.expecting(order.foreseen(foreseen_positions)):
            return work() if brief and order.attention is None else await self.offload(checked)

    async def offload(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `function` in the threads."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.threads, lambda: function(*args, **kwargs))

"""What translating, captioning and transcribing share: from an input, read, to the text that a model makes of it."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any

from regard.attention.axes import Passage
from regard.attention.simultaneous import AlignAtt
from regard.engine.interventions import Interventions
from regard.engine.request import GeneratedSequence, GenerateRequest, Generation, TapBudget
from regard.engine.search.options import GenerationOptions
from regard.engine.source import Unread
from regard.errors import EngineError, InvalidInputError
from regard.manifest import GenerationSpec, Manifest, Task
from regard.rpc import convert
from regard.rpc.attention import bytes_of, sized
from regard.rpc.deltas import Deltas, Looking, align_att
from regard.rpc.interventions import InterventionOrder, intervention_order
from regard.rpc.options import has_texts, search_of
from regard.rpc.reading import Reading
from regard.rpc.resources import READ_FOR_EACH_BYTE, Order, Resources
from regard.rpc.sampling import HealthSample, draw_sample
from regard.rpc.words import WordsOrder
from regard.text.codec import TextCodec
from regard.text.stops import StopStrings
from regard.v1 import (
    attention_pb2,
    attribution_pb2,
    caption_pb2,
    completion_pb2,
    generation_pb2,
    intervention_pb2,
    result_pb2,
    transcription_pb2,
    translation_pb2,
)

GeneratingRequest = (
    translation_pb2.TranslateRequest
    | translation_pb2.StreamTranslateRequest
    | caption_pb2.CaptionRequest
    | caption_pb2.StreamCaptionRequest
    | completion_pb2.CompleteRequest
    | completion_pb2.StreamCompleteRequest
    | transcription_pb2.TranscribeRequest
    | transcription_pb2.StreamTranscribeRequest
    | attribution_pb2.AttributeTranslationRequest
    | attribution_pb2.AttributeCaptionRequest
)
BRIEF_TOKENS = 500
"""So many tokens are text sooner (70 us) than a thread is reached."""
LOGPROB_BYTES = 24
"""About what a response takes for each of the likeliest tokens: its id, its spelling, a double and their tags."""


@dataclass(frozen=True, slots=True)
class GenerateOrder(Order):
    """What a request asks of each of its inputs, and how the model's text is written."""

    codec: TextCodec
    spec: GenerationSpec
    options: GenerationOptions
    stops: StopStrings | None
    token_logprobs: bool
    max_tap_bytes: int
    """What the weights of one input's output may come to while it is made, of all of its sequences."""
    options_behind: Callable[[int], GenerationOptions] | None = None
    """The options behind a prompt of so many tokens, which takes the start token's place; None if none does."""
    words: WordsOrder | None = None
    """What is told of a translation's words, if anything is."""
    sample: HealthSample | None = None
    """What the health of attention is measured by, if this request is one of those where it is."""
    interventions: InterventionOrder | None = None
    policy: AlignAtt | None = None
    """What tells of a streamed token whether it may be shown; None if nothing is told."""

    def foreseen(self, positions: int) -> GenerateRequest:
        """Return what the engine will be asked for, as far as it is known before the source is read."""
        return GenerateRequest(
            Unread(positions),
            self.options,
            deadline=self.call.deadline,
            client=self.call.client,
            priority=self.call.priority,
        )

    def request(self, reading: Reading, interventions: Interventions, *, streaming: bool) -> GenerateRequest:
        """Return what the engine is asked for. Raises `InvalidInputError` if a prompt leaves too little room."""
        sample = self.sample_of(reading)
        return GenerateRequest(
            source=reading.source,
            options=self.options_behind(reading.source.length) if self.options_behind else self.options,
            taps=self.tap_names.union(*(looking.tap_names for looking in (self.words, sample) if looking)),
            deadline=self.call.deadline,
            streaming=streaming,
            client=self.call.client,
            priority=self.call.priority,
            interventions=interventions,
            tap_budget=self._tap_budget,
        )

    def sample_of(self, reading: Reading) -> HealthSample | None:
        """Return what the health of an input is measured by; None also where an output could have too many weights."""
        if self.sample is None:
            return None
        queries = self.options.width * (len(self.options.prefix_token_ids) + self.options.max_new_tokens)
        fits = self.sample.size_of(queries, reading.source.length) <= self.max_tap_bytes
        return self.sample if fits else None

    def is_brief(self, generation: Generation) -> bool:
        """Return whether what is told of a result is little more than its text, and that is short."""
        told_more = self.token_logprobs or self.attention is not None or self.words is not None
        return not told_more and sum(len(one.token_ids) for one in generation.sequences) <= BRIEF_TOKENS

    @property
    def _tap_budget(self) -> TapBudget | None:
        """What the weights that were asked for may come to, as `max_tap_bytes` says; None if none were."""
        fields = (*(["attention"] if self.attention else []), *([self.words.field] if self.words else []))
        taps = self.tap_names | (self.words.tap_names if self.words else frozenset())
        return TapBudget(taps, self.max_tap_bytes, fields) if fields else None


@dataclass(frozen=True, slots=True)
class Product:
    """What a model made of one input, in the terms of the messages: the best sequence, and those after it."""

    best: generation_pb2.GeneratedSequence
    token_ids: Sequence[int]
    """Those of the best sequence."""
    further: list[generation_pb2.GeneratedSequence]
    source_tokens: int
    truncated: bool
    timing: result_pb2.Timing

    @property
    def attention(self) -> attention_pb2.Attention | None:
        """The attention of the best sequence, if it was asked for."""
        return self.best.attention if self.best.HasField("attention") else None


class Generations:
    """Runs the inputs of generating services; each is a coroutine that reads it."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    async def order(
        self,
        request: GeneratingRequest,
        task: Task,
        *,
        inputs: int,
        field: str,
        streaming: bool,
        truncate: bool = False,
        beginning: Callable[[Manifest], Mapping[str, Any]] | None = None,
        align_att_frames: int | None = None,
        interventions: Sequence[intervention_pb2.Intervention] = (),
        words: Callable[[Manifest], WordsOrder | None] | None = None,
    ) -> GenerateOrder:
        """Check what concerns all inputs of a request; raises what `Resources.order` and `search_of` do.

        `beginning` gives the options of how every output begins, whatever its own prefix; `words` what is
        told of a translation's words; `align_att_frames` is what streamed tokens are marked by.
        """
        asked = request.generation
        order = self._resources.order(
            request,
            task,
            inputs=inputs,
            field=field,
            sharing=1 if streaming else inputs,
            sequences=max(asked.num_return_sequences, 1),
            truncate=truncate,
        )
        codec, spec = order.model.text, order.model.manifest.generation
        if spec is None or codec is None:
            raise EngineError(f"package {order.model.label} does not say how to generate text")
        manifest, settings = order.model.manifest, self._resources.settings
        fixed = beginning(manifest) if beginning else {}
        told = words(manifest) if words else None
        tapped = order.attention is not None or told is not None
        read = partial(search_of, asked, spec, codec, streaming=streaming, fixed=fixed)
        search = await self._resources.offload(read) if has_texts(asked) else read()
        options = search.behind()
        check_width(options, settings.engine.max_rows)
        check_logprobs(options, 1 if streaming else inputs, settings.max_message_bytes)
        return GenerateOrder(
            order.model,
            order.call,
            order.truncate,
            order.attention,
            codec,
            spec,
            options,
            search.stops,
            asked.token_logprobs or asked.top_logprobs > 0,
            READ_FOR_EACH_BYTE * settings.max_attention_bytes // inputs,
            search.behind if task is Task.COMPLETION else None,
            told,
            None if interventions else draw_sample(manifest, settings.attention_health_share, tapped=tapped),
            intervention_order(interventions, order.model.manifest, settings.max_attention_bytes // inputs),
            None if align_att_frames is None else align_att(align_att_frames, order.attention),
        )

    async def run(self, order: GenerateOrder, read: Awaitable[Reading], field: str) -> Product:
        """Return what the model makes of one input."""
        with self._resources.one_input(order):
            return await self.generate(order, await read, field)

    async def stream(
        self, order: GenerateOrder, read: Awaitable[Reading], field: str
    ) -> AsyncGenerator[generation_pb2.TokenDelta | Product, None]:
        """Yield each token of one input as it is made, then the whole."""
        with self._resources.one_input(order):
            async with aclosing(self.events(order, await read, field)) as events:
                async for event in events:
                    yield event

    async def generate(self, order: GenerateOrder, reading: Reading, field: str) -> Product:
        """Return what the model makes of what was read."""
        interventions = await self._resources.interventions(order.interventions, reading, field)
        generation = await order.model.worker.run(order.request(reading, interventions, streaming=False))
        if not isinstance(generation, Generation):
            raise EngineError("the model gave something else than text")
        return await self._finish(order, reading, generation, field)

    async def events(
        self, order: GenerateOrder, reading: Reading, field: str, *, first: bool = True
    ) -> AsyncGenerator[generation_pb2.TokenDelta | Product, None]:
        """Yield each token of what was read as it is made, then the whole; `first` if none came before."""
        deltas = await self._deltas(order, reading)
        interventions = await self._resources.interventions(order.interventions, reading, field)
        request = order.request(reading, interventions, streaming=True)
        async with aclosing(order.model.worker.stream(request, held=order.call.held.add_streamed)) as events:
            async for event in events:
                if isinstance(event, Generation):
                    yield await self._finish(order, reading, event, field)
                    return
                if first and deltas.count == 0:
                    self._first_token(order)
                yield deltas.next(event)
        raise EngineError("the model ended without a result")

    async def _deltas(self, order: GenerateOrder, reading: Reading) -> Deltas:
        looking = None
        if order.attention:
            selection, policy = order.attention.selection, order.policy
            looking = await self._resources.offload(Looking.at, selection, policy, reading.passage)
        return Deltas(order.codec, order.stops, looking)

    def _first_token(self, order: GenerateOrder) -> None:
        labels = order.model.labels
        seconds = time.monotonic() - order.call.started
        self._resources.metrics.time_to_first_token_seconds.labels(labels.model, labels.version).observe(seconds)

    async def _finish(self, order: GenerateOrder, reading: Reading, generation: Generation, field: str) -> Product:
        metrics, labels = self._resources.metrics, order.model.labels
        if order.is_brief(generation):
            product = _produce(order, reading, generation, field)
        else:
            product = await self._resources.offload(_produce, order, reading, generation, field)
        if (sample := order.sample_of(reading)) is not None:
            health = await self._resources.offload(sample.measure, order.codec, generation.best, reading.passage)
            metrics.attention_measured(labels, health)
        metrics.input_served(labels, product.source_tokens, generation.phases)
        given = len(order.options.prefix_token_ids)
        generated = sum(len(sequence.token_ids) - given for sequence in generation.sequences)
        metrics.generated_tokens.labels(labels.model, labels.version).inc(generated)
        for sequence in (product.best, *product.further):
            if sequence.HasField("attention"):
                metrics.attention_sent(labels, bytes_of(sequence.attention))
        return product


def check_width(options: GenerationOptions, max_rows: int) -> None:
    """Raise `InvalidInputError` if one input takes more rows than the server decodes side by side."""
    if options.width > max_rows:
        name = "num_beams" if options.num_beams > max_rows else "num_return_sequences"
        raise InvalidInputError(
            f"generation.{name} is {options.width}; this server decodes at most {max_rows} side by side "
            "(engine.max_rows)",
            field=f"generation.{name}",
        )


def check_logprobs(options: GenerationOptions, outputs: int, max_bytes: int) -> None:
    """Raise `InvalidInputError` if the likeliest tokens of so many outputs could be too much for one response."""
    length = len(options.prefix_token_ids) + options.max_new_tokens
    tokens = outputs * options.num_return_sequences * length
    size = tokens * options.top_logprobs * LOGPROB_BYTES
    if size > max_bytes:
        raise InvalidInputError(
            f"generation.top_logprobs is {options.top_logprobs}, and of {tokens:,} tokens may come to {sized(size)}, "
            f"and a response may have {sized(max_bytes)} of them; ask for fewer, set max_new_tokens, ask for fewer "
            "sequences, or send less at once",
            field="generation.top_logprobs",
        )


def _produce(order: GenerateOrder, reading: Reading, generation: Generation, field: str) -> Product:
    best, *further = (_sequence(order, reading, sequence, field) for sequence in generation.sequences)
    return Product(
        best=best,
        token_ids=generation.best.token_ids,
        further=further,
        source_tokens=reading.source.length,
        truncated=reading.truncated,
        timing=convert.timing(generation.phases),
    )


def _sequence(
    order: GenerateOrder, reading: Reading, sequence: GeneratedSequence, field: str
) -> generation_pb2.GeneratedSequence:
    codec, attention = order.codec, None
    told: Mapping[str, Any] = {}
    if order.attention is None and order.words is None:
        text = _cut(order, codec.decode(sequence.token_ids))
    else:
        copying = order.words is not None and order.words.replace_unknowns
        whole, segments = codec.segments_of(sequence.token_ids, unknowns=copying)
        text = _cut(order, whole)
        source, target = reading.passage, Passage(text, tuple(segment.within(len(text)) for segment in segments))
        if order.words is not None and isinstance(source, Passage):
            target, told = order.words.tell(codec, sequence, source, target)
            text = target.text
        if order.attention is not None:
            start = None if order.options_behind else codec.special_segment(order.spec.start_token_id)
            attention = order.attention.fill(
                order.model.package, sequence.taps, source, field, target=target, start=start
            )
    return generation_pb2.GeneratedSequence(
        text=text,
        finish_reason=convert.FINISH_REASONS[sequence.finish_reason],
        target_tokens=len(sequence.token_ids),
        log_probability=math.fsum(sequence.log_probabilities),
        score=sequence.score,
        tokens=convert.tokens(sequence, codec.spelling) if order.token_logprobs else (),
        attention=attention,
        **told,
    )


def _cut(order: GenerateOrder, text: str) -> str:
    return order.stops.cut(text) if order.stops else text

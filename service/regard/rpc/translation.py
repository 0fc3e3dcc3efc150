"""`regard.v1.TranslationService`: texts to tokens, through the worker, and back to texts."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from regard.attention.axes import Passage
from regard.engine.request import GenerateRequest, Generation, TokenEvent
from regard.errors import EngineError, InvalidInputError, RegardError
from regard.manifest import GenerationSpec, Task
from regard.rpc import convert
from regard.rpc.attention import bytes_of
from regard.rpc.inputs import gather, merge
from regard.rpc.interceptor import Context
from regard.rpc.resources import Order, Resources
from regard.text.codec import EncodedText
from regard.v1 import generation_pb2, translation_pb2, translation_pb2_grpc


@dataclass(frozen=True, slots=True)
class _TranslateOrder(Order):
    spec: GenerationSpec
    max_new_tokens: int

    def request(self, encoded: EncodedText, *, streaming: bool) -> GenerateRequest:
        return GenerateRequest(
            input_ids=encoded.token_ids,
            max_new_tokens=self.max_new_tokens,
            taps=self.tap_names,
            deadline=self.call.deadline,
            streaming=streaming,
        )


class TranslationService(translation_pb2_grpc.TranslationServiceServicer):
    """Translates with the models of a catalog."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    async def Translate(  # noqa: N802
        self, request: translation_pb2.TranslateRequest, context: Context
    ) -> translation_pb2.TranslateResponse:
        """Return a result for each text."""
        order = self._order(request, sharing=len(request.texts))
        outcomes = await gather(self._translate(order, index, text) for index, text in enumerate(request.texts))
        return translation_pb2.TranslateResponse(
            model=convert.model_version(order.model.manifest),
            results=[
                translation_pb2.TranslationResult(failure=convert.failure(outcome))
                if isinstance(outcome, RegardError)
                else translation_pb2.TranslationResult(translation=outcome)
                for outcome in outcomes
            ],
        )

    async def StreamTranslate(  # noqa: N802
        self, request: translation_pb2.StreamTranslateRequest, context: Context
    ) -> AsyncGenerator[translation_pb2.StreamTranslateResponse, None]:
        """Yield the tokens of every text as they are made, and each text's result as its last event."""
        order = self._order(request, sharing=1)
        streams = [self._stream(order, index, text) for index, text in enumerate(request.texts)]
        async with aclosing(merge(streams)) as events:
            async for index, event in events:
                if isinstance(event, RegardError):
                    yield translation_pb2.StreamTranslateResponse(input_index=index, failure=convert.failure(event))
                elif isinstance(event, translation_pb2.Translation):
                    yield translation_pb2.StreamTranslateResponse(input_index=index, translation=event)
                else:
                    yield translation_pb2.StreamTranslateResponse(input_index=index, delta=event)

    def _order(
        self, request: translation_pb2.TranslateRequest | translation_pb2.StreamTranslateRequest, *, sharing: int
    ) -> _TranslateOrder:
        order = self._resources.order(
            request, Task.TRANSLATION, inputs=len(request.texts), field="texts", sharing=sharing
        )
        manifest = order.model.manifest
        spec = manifest.generation
        if spec is None:
            raise EngineError(f"package {order.model.label} does not say how to generate")
        limit, asked = spec.max_target_tokens, request.generation.max_new_tokens
        if asked > limit:
            raise InvalidInputError(
                f"generation.max_new_tokens is {asked}; model {manifest.name} gives at most {limit}",
                field="generation.max_new_tokens",
            )
        return _TranslateOrder(order.model, order.call, order.truncate, order.attention, spec, asked or limit)

    async def _translate(self, order: _TranslateOrder, index: int, text: str) -> translation_pb2.Translation:
        field = f"texts[{index}]"
        with self._resources.one_input(order):
            encoded = await self._resources.encode(order, text, field)
            generation = await order.model.worker.run(order.request(encoded, streaming=False))
            if not isinstance(generation, Generation):
                raise EngineError("the model gave something else than a translation")
            return await self._finish(order, text, encoded, generation, field)

    async def _stream(
        self, order: _TranslateOrder, index: int, text: str
    ) -> AsyncGenerator[generation_pb2.TokenDelta | translation_pb2.Translation, None]:
        field = f"texts[{index}]"
        with self._resources.one_input(order):
            encoded = await self._resources.encode(order, text, field)
            deltas = _Deltas(order)
            async with aclosing(order.model.worker.stream(order.request(encoded, streaming=True))) as events:
                async for event in events:
                    if isinstance(event, Generation):
                        yield await self._finish(order, text, encoded, event, field)
                        return
                    if deltas.count == 0:
                        self._first_token(order)
                    yield deltas.next(event)
            raise EngineError("the model ended without a result")

    def _first_token(self, order: _TranslateOrder) -> None:
        labels = order.model.labels
        seconds = time.monotonic() - order.call.started
        self._resources.metrics.time_to_first_token_seconds.labels(labels.model, labels.version).observe(seconds)

    async def _finish(
        self, order: _TranslateOrder, text: str, encoded: EncodedText, generation: Generation, field: str
    ) -> translation_pb2.Translation:
        translation = await self._resources.offload(_decode, order, text, encoded, generation, field)
        metrics, labels = self._resources.metrics, order.model.labels
        metrics.input_served(labels, len(encoded.token_ids), generation.phases)
        metrics.generated_tokens.labels(labels.model, labels.version).inc(len(generation.token_ids))
        if order.attention:
            metrics.attention_sent(labels, bytes_of(translation.attention))
        return translation


class _Deltas:
    """What each token of one text adds to it; the last brings whatever was held back.

    Taken on the event loop: it is a matter of microseconds, less than the way to a thread.
    """

    def __init__(self, order: _TranslateOrder) -> None:
        self._eos_token_ids = order.spec.eos_token_ids
        self._max_new_tokens = order.max_new_tokens
        self._detokenizer = order.model.codec.detokenizer()
        self.count = 0

    def next(self, event: TokenEvent) -> generation_pb2.TokenDelta:
        self.count += 1
        text = self._detokenizer.push(event.token_id)
        if event.token_id in self._eos_token_ids or self.count == self._max_new_tokens:
            text += self._detokenizer.finish()
        return generation_pb2.TokenDelta(token_id=event.token_id, text=text, log_probability=event.log_probability)


def _decode(
    order: _TranslateOrder, text: str, encoded: EncodedText, generation: Generation, field: str
) -> translation_pb2.Translation:
    codec = order.model.codec
    translation = translation_pb2.Translation(
        finish_reason=convert.FINISH_REASONS[generation.finish_reason],
        source_tokens=len(encoded.token_ids),
        target_tokens=len(generation.token_ids),
        log_probability=math.fsum(generation.log_probabilities),
        truncated=encoded.truncated,
        timing=convert.timing(generation.phases),
    )
    if order.attention is None:
        translation.text = codec.decode(generation.token_ids)
        return translation
    translation.text, segments = codec.segments_of(generation.token_ids)
    source, target = Passage(text, encoded.segments), Passage(translation.text, segments)
    attention = order.attention.fill(order.model.package, codec, generation.taps, source, target, field)
    translation.attention.CopyFrom(attention)
    return translation

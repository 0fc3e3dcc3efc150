"""`regard.v1.TranslationService`: texts to tokens, through the worker, and back to texts."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial

from regard.errors import RegardError
from regard.manifest import Task
from regard.rpc import convert
from regard.rpc.deltas import frames_of
from regard.rpc.generation import GenerateOrder, Generations, Product
from regard.rpc.inputs import gather, merge
from regard.rpc.interceptor import Context
from regard.rpc.markup import mark
from regard.rpc.resources import Resources
from regard.rpc.scoring import Scores
from regard.rpc.words import words_order
from regard.text.markup.document import Markup, read_document
from regard.v1 import translation_pb2, translation_pb2_grpc


class TranslationService(translation_pb2_grpc.TranslationServiceServicer):
    """Translates with the models of a catalog."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._generations = Generations(resources)
        self._scores = Scores(resources)

    async def Translate(  # noqa: N802
        self, request: translation_pb2.TranslateRequest, context: Context
    ) -> translation_pb2.TranslateResponse:
        """Return a result for each text."""
        markup = convert.markup_of(request.markup)
        order = await self._order(request, streaming=False)
        outcomes = await gather(
            self._generations.run(order, self._resources.read_text(order, text, field), field)
            if markup is None
            else self._translate_document(order, text, markup, field, keep_alignment=request.alignment)
            for field, text in _fields(request)
        )
        return translation_pb2.TranslateResponse(
            model=convert.model_version(order.model.manifest),
            results=[
                translation_pb2.TranslationResult(failure=convert.failure(outcome))
                if isinstance(outcome, RegardError)
                else translation_pb2.TranslationResult(translation=_translation(outcome))
                for outcome in outcomes
            ],
        )

    async def StreamTranslate(  # noqa: N802
        self, request: translation_pb2.StreamTranslateRequest, context: Context
    ) -> AsyncGenerator[translation_pb2.StreamTranslateResponse, None]:
        """Yield the tokens of every text as they are made, and each text's result as its last event."""
        order = await self._order(request, streaming=True)
        streams = [
            self._generations.stream(order, self._resources.read_text(order, text, field), field)
            for field, text in _fields(request)
        ]
        respond, model = translation_pb2.StreamTranslateResponse, convert.model_version(order.model.manifest)
        async with aclosing(merge(streams)) as events:
            async for index, event in events:
                if isinstance(event, RegardError):
                    yield respond(input_index=index, failure=convert.failure(event), model=model)
                elif isinstance(event, Product):
                    yield respond(input_index=index, translation=_translation(event), model=model)
                else:
                    yield respond(input_index=index, delta=event)

    async def ScoreTranslation(  # noqa: N802
        self, request: translation_pb2.ScoreTranslationRequest, context: Context
    ) -> translation_pb2.ScoreTranslationResponse:
        """Return a score for each pair."""
        order = self._scores.order(request)
        outcomes = await gather(
            self._scores.run(order, pair, f"pairs[{index}]") for index, pair in enumerate(request.pairs)
        )
        return translation_pb2.ScoreTranslationResponse(
            model=convert.model_version(order.model.manifest),
            results=[
                translation_pb2.ScoreResult(failure=convert.failure(outcome))
                if isinstance(outcome, RegardError)
                else translation_pb2.ScoreResult(score=outcome)
                for outcome in outcomes
            ],
        )

    async def _translate_document(
        self, order: GenerateOrder, text: str, markup: Markup, field: str, *, keep_alignment: bool
    ) -> Product:
        with self._resources.one_input(order):
            with order.model.worker.expecting(order.foreseen(order.codec.foresee(text))):
                document = await self._resources.offload(read_document, text, markup, field)
            reading = await self._resources.read_text(order, document.text, field)
            product = await self._generations.generate(order, reading, field)
            await self._resources.offload(mark, product, document, keep_alignment=keep_alignment)
            return product

    async def _order(
        self,
        request: translation_pb2.TranslateRequest | translation_pb2.StreamTranslateRequest,
        *,
        streaming: bool,
    ) -> GenerateOrder:
        return await self._generations.order(
            request,
            Task.TRANSLATION,
            inputs=len(request.texts),
            field="texts",
            streaming=streaming,
            truncate=request.truncate,
            align_att_frames=frames_of(request)
            if isinstance(request, translation_pb2.StreamTranslateRequest)
            else None,
            interventions=request.interventions,
            words=partial(words_order, request),
        )


def _fields(
    request: translation_pb2.TranslateRequest | translation_pb2.StreamTranslateRequest,
) -> list[tuple[str, str]]:
    return [(f"texts[{index}]", text) for index, text in enumerate(request.texts)]


def _translation(product: Product) -> translation_pb2.Translation:
    best = product.best
    return translation_pb2.Translation(
        text=best.text,
        finish_reason=best.finish_reason,
        source_tokens=product.source_tokens,
        target_tokens=best.target_tokens,
        log_probability=best.log_probability,
        score=best.score,
        truncated=product.truncated,
        tokens=best.tokens,
        attention=product.attention,
        alignment=best.alignment if best.HasField("alignment") else None,
        quality=best.quality if best.HasField("quality") else None,
        glossary=best.glossary,
        further_sequences=product.further,
        timing=product.timing,
    )

"""Translations that are given, scored: how likely a model finds each of their tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass

from regard.engine.request import GenerateRequest, Generation
from regard.engine.search.options import GenerationOptions, scoring
from regard.engine.source import Source, Unread
from regard.errors import EngineError, InvalidInputError
from regard.manifest import GenerationSpec, Task
from regard.rpc import convert
from regard.rpc.options import search_of
from regard.rpc.resources import Order, Resources
from regard.text.codec import CHARACTERS_PER_TOKEN, TextCodec
from regard.v1 import generation_pb2, translation_pb2


@dataclass(frozen=True, slots=True)
class _ScoreOrder(Order):
    codec: TextCodec
    spec: GenerationSpec
    language: int | None

    def foreseen(self, positions: int) -> GenerateRequest:
        """Return what the engine will be asked for, the given translation taken for as long as its own."""
        return self.request(Unread(positions), GenerationOptions(max_new_tokens=self.spec.max_target_tokens))

    def request(self, source: Source, options: GenerationOptions) -> GenerateRequest:
        """Return what the engine is asked for."""
        call = self.call
        return GenerateRequest(source, options, deadline=call.deadline, client=call.client, priority=call.priority)


class Scores:
    """Scores the pairs of a request."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    def order(self, request: translation_pb2.ScoreTranslationRequest) -> _ScoreOrder:
        """Check what concerns all pairs of a request; raises what `Resources.order` does."""
        pairs = len(request.pairs)
        order = self._resources.order(
            request, Task.TRANSLATION, inputs=pairs, field="pairs", sharing=pairs, truncate=request.truncate
        )
        codec, spec = order.model.text, order.model.manifest.generation
        if spec is None or codec is None:
            raise EngineError(f"package {order.model.label} does not say how to generate text")
        asked = generation_pb2.GenerationOptions(target_language=request.target_language)
        language = search_of(asked, spec, codec, streaming=False, fixed={}).behind().forced_bos_token_id
        return _ScoreOrder(order.model, order.call, order.truncate, None, codec, spec, language)

    async def run(
        self, order: _ScoreOrder, pair: translation_pb2.TranslationPair, field: str
    ) -> translation_pb2.TranslationScore:
        """Return how likely one translation is."""
        with self._resources.one_input(order):
            reading = await self._resources.read_text(order, pair.text, f"{field}.text")
            token_ids = await self._resources.offload(
                output_tokens, order.codec, order.spec, order.language, pair.target, f"{field}.target"
            )
            generation = await order.model.worker.run(order.request(reading.source, scoring(token_ids)))
            if not isinstance(generation, Generation):
                raise EngineError("the model gave something else than text")
            self._resources.metrics.input_served(order.model.labels, reading.source.length, generation.phases)
            return translation_pb2.TranslationScore(
                tokens=convert.tokens(generation.best, order.codec.spelling),
                log_probability=math.fsum(generation.best.log_probabilities),
                source_tokens=reading.source.length,
                truncated=reading.truncated,
                timing=convert.timing(generation.phases),
            )


def output_tokens(codec: TextCodec, spec: GenerationSpec, language: int | None, given: str, field: str) -> list[int]:
    """Return the tokens of an output that is given, from its language, if it has a token, to its end.

    Raises `InvalidInputError`, naming `field`, for one without tokens, and one of more than the model writes; before
    it is tokenized, if its characters tell.
    """
    if len(given) > CHARACTERS_PER_TOKEN * spec.max_target_tokens:
        raise InvalidInputError(
            f"{field} has {len(given)} characters, which is more than {CHARACTERS_PER_TOKEN * spec.max_target_tokens}, "
            f"the most for a model that writes {spec.max_target_tokens} tokens; shorten it",
            field=field,
        )
    pieces = codec.pieces(given)
    if not pieces:
        raise InvalidInputError(f"{field} holds nothing that the model's vocabulary knows", field=field)
    token_ids = [*(() if language is None else (language,)), *pieces, spec.eos_token_ids[0]]
    if len(token_ids) > spec.max_target_tokens:
        raise InvalidInputError(
            f"{field} has {len(token_ids)} tokens, the end included; the model writes at most "
            f"{spec.max_target_tokens}; shorten it",
            field=field,
        )
    return token_ids

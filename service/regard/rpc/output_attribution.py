"""Which parts of an input made each word of an output likely: of a translation, or of a caption."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from regard.attention.axes import Axis, AxisName, Passage
from regard.attention.parts import parts_of
from regard.attention.selection import Granularity
from regard.engine.interventions import NO_INTERVENTIONS, Interventions
from regard.engine.request import GeneratedSequence, GenerateRequest, Generation
from regard.engine.search.options import GenerationOptions, scoring
from regard.engine.source import Source
from regard.errors import EngineError, InvalidInputError
from regard.manifest import Task
from regard.rpc import convert
from regard.rpc.attending import CrossAttention
from regard.rpc.attribution_messages import attributions, wish_of
from regard.rpc.erasing import eraser_of
from regard.rpc.explaining import Explainer, Floats, Subject, explainer_of
from regard.rpc.generation import GenerateOrder, Generations
from regard.rpc.options import tells_scores
from regard.rpc.overlays import Overlays
from regard.rpc.reading import ImageReading, Reading, TextReading
from regard.rpc.resources import Resources
from regard.rpc.scoring import output_tokens
from regard.text.words import Word
from regard.v1 import attribution_pb2, generation_pb2


@dataclass(frozen=True, slots=True)
class OutputOrder:
    """What a request asks of each of its inputs."""

    generate: GenerateOrder
    explainer: Explainer
    overlays: Overlays


@dataclass(frozen=True, slots=True)
class _Output:
    """An output, and the tokens of each of its words, the end among them."""

    token_ids: Sequence[int]
    text: str
    axis: Axis
    words: Sequence[Sequence[int]]

    def scores(self, sequence: GeneratedSequence) -> Floats:
        """Return what each word scores, [words]: the sum of its tokens' log-probabilities."""
        return np.array([math.fsum(sequence.log_probabilities[token] for token in word) for word in self.words])

    def likelihood(self, scores: Floats) -> float:
        """Return the geometric mean of the tokens' probabilities."""
        return math.exp(math.fsum(scores) / len(self.token_ids))


class OutputAttributions:
    """Explains the outputs to a request's inputs, one that is given or the model's own."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._generations = Generations(resources)

    async def order(
        self,
        request: attribution_pb2.AttributeTranslationRequest | attribution_pb2.AttributeCaptionRequest,
        task: Task,
        *,
        truncate: bool = False,
    ) -> OutputOrder:
        """Check what concerns all inputs of a request; raises what `Generations.order` and `wish_of` do."""
        inputs = len(request.inputs)
        _check_options(request.generation)
        order = await self._generations.order(
            request, task, inputs=inputs, field="inputs", streaming=False, truncate=truncate
        )
        order.call.labels = replace(order.model.labels, task="attribution")
        wish = wish_of(request.attribution, order.model.manifest)
        explainer = explainer_of(wish, self._resources, order.model, inputs)
        return OutputOrder(order, explainer, Overlays(self._resources, wish))

    async def run(
        self, order: OutputOrder, read: Awaitable[Reading], given: str | None, field: str, image: bytes = b""
    ) -> attribution_pb2.OutputAttribution:
        """Return which parts of one input made each word of the output likely."""
        resources, wish, manifest = self._resources, order.explainer.wish, order.generate.model.manifest
        with resources.one_input(order.generate):
            reading = await read
            assert isinstance(reading, TextReading | ImageReading)
            parts = parts_of(reading.passage, wish.granularity, field)
            output = await self._output(order, reading, given, field)
            attention = CrossAttention.of(
                wish, manifest, reading.source.length, len(output.token_ids), order.explainer.max_attention_bytes, field
            )
            options = scoring(output.token_ids)
            whole = await self._generate(order, reading.source, options, attention.taps)

            async def score(source: Source, interventions: Interventions) -> Floats:
                return output.scores(await self._generate(order, source, options, interventions=interventions))

            attended = await resources.offload(attention.read, whole.taps, parts, output.words)
            eraser = await resources.offload(eraser_of, reading, parts, order.generate.codec)
            subject = Subject(parts, eraser, output.scores(whole), score, output.likelihood, attended, output.axis)
            explanation = await order.explainer.explain(subject, field)
            overlays = await order.overlays.draw(image, subject, explanation, f"{field}.image")
            return attribution_pb2.OutputAttribution(
                text=output.text,
                tokens=convert.tokens(whole, order.generate.codec.spelling),
                log_probability=math.fsum(whole.log_probabilities),
                target=convert.axis_message(output.axis),
                attributions=attributions(order.generate.model.package, wish, subject, explanation, overlays),
            )

    async def _output(self, order: OutputOrder, reading: Reading, given: str | None, field: str) -> _Output:
        """Return the output to explain: the one that is given, or what the model makes of the input."""
        if given is None:
            token_ids = (await self._generate(order, reading.source, order.generate.options)).token_ids
        else:
            generate, at = order.generate, f"{field}.{'caption' if isinstance(reading, ImageReading) else 'target'}"
            if generate.options.prefix_token_ids:
                raise InvalidInputError(
                    f"generation.target_prefix can't be set where {at} gives the output, with its beginning",
                    field="generation.target_prefix",
                )
            language = generate.options.forced_bos_token_id
            token_ids = await self._resources.offload(output_tokens, generate.codec, generate.spec, language, given, at)
        return await self._resources.offload(_output_of, order, token_ids)

    async def _generate(
        self,
        order: OutputOrder,
        source: Source,
        options: GenerationOptions,
        taps: frozenset[str] = frozenset(),
        interventions: Interventions = NO_INTERVENTIONS,
    ) -> GeneratedSequence:
        call = order.generate.call
        request = GenerateRequest(
            source,
            options,
            taps,
            deadline=call.deadline,
            client=call.client,
            priority=call.priority,
            interventions=interventions,
        )
        generation = await order.generate.model.worker.run(request)
        if not isinstance(generation, Generation):
            raise EngineError("the model gave something else than text")
        return generation.best


def _check_options(asked: generation_pb2.GenerationOptions) -> None:
    """Raise `InvalidInputError` for what an explanation would leave out."""
    for name, refused, reason in (
        ("num_return_sequences", asked.num_return_sequences > 1, "explains one output"),
        ("stop_strings", asked.stop_strings, "explains an output to its end, and cuts none"),
        ("top_logprobs", asked.top_logprobs, "tells of no other tokens than those that it explains"),
    ):
        if refused:
            raise InvalidInputError(
                f"generation.{name} can't be had of an attribution, which {reason}; leave it out",
                field=f"generation.{name}",
            )
    if not tells_scores(asked):
        raise InvalidInputError(
            "generation.return_scores can't be false in an attribution, which tells how likely the output's tokens are",
            field="generation.return_scores",
        )


def _output_of(order: OutputOrder, token_ids: Sequence[int]) -> _Output:
    text, segments = order.generate.codec.segments_of(token_ids)
    if order.explainer.wish.granularity is Granularity.TOKEN:
        words = [Word(segment, (place,)) for place, segment in enumerate(segments)]
    else:
        words = Passage(text, segments).words()
    axis = Axis(AxisName.TARGET, tuple(word.segment for word in words))
    return _Output(token_ids, text, axis, [word.tokens for word in words])

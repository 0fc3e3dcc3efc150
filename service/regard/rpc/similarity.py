"""`regard.v1.SimilarityService`: images and texts to embeddings, through the worker, and their products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from regard.attention.selection import AttentionStack
from regard.engine.request import Classification
from regard.errors import EngineError, RegardError
from regard.manifest import SimilaritySpec, Task
from regard.rpc import convert
from regard.rpc.attention import bytes_of
from regard.rpc.inputs import gather
from regard.rpc.interceptor import Context
from regard.rpc.reading import Reading
from regard.rpc.resources import Order, Resources
from regard.v1 import attention_pb2, similarity_pb2, similarity_pb2_grpc

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Embedded:
    """An image or a text, what the model made of it, and its attention, if it was asked for."""

    reading: Reading
    result: Classification
    attention: attention_pb2.Attention | None


class SimilarityService(similarity_pb2_grpc.SimilarityServiceServicer):
    """Compares with the models of a catalog."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    async def Compare(  # noqa: N802
        self, request: similarity_pb2.CompareRequest, context: Context
    ) -> similarity_pb2.CompareResponse:
        """Return a result for each image and each text."""
        inputs = len(request.images) + len(request.texts)
        order = self._resources.order(
            request,
            Task.SIMILARITY,
            inputs=inputs,
            field="images and texts",
            sharing=inputs,
            truncate=request.truncate,
        )
        spec = order.model.manifest.similarity
        if spec is None:
            raise EngineError(f"package {order.model.label} does not say how it compares")
        outcomes = await gather(
            [
                *(self._image(order, image, f"images[{index}]") for index, image in enumerate(request.images)),
                *(self._text(order, text, f"texts[{index}]") for index, text in enumerate(request.texts)),
            ]
        )
        images, texts = outcomes[: len(request.images)], outcomes[len(request.images) :]
        return similarity_pb2.CompareResponse(
            model=convert.model_version(order.model.manifest),
            images=_images(spec, images, texts, with_embeddings=request.return_embeddings),
            texts=[_text(text, with_embedding=request.return_embeddings) for text in texts],
        )

    async def _image(self, order: Order, image: bytes, field: str) -> _Embedded:
        own = _of_stack(order, AttentionStack.IMAGE_ENCODER)
        with self._resources.one_input(own):
            return await self._embed(own, await self._resources.read_image(own, image, field), field)

    async def _text(self, order: Order, text: str, field: str) -> _Embedded:
        own = _of_stack(order, AttentionStack.TEXT_ENCODER)
        with self._resources.one_input(own):
            return await self._embed(own, await self._resources.read_text(own, text, field), field)

    async def _embed(self, order: Order, reading: Reading, field: str) -> _Embedded:
        resources, labels = self._resources, order.model.labels
        result = await resources.answer(order, reading.source)
        attention = None
        if order.attention:
            attention = await resources.offload(
                order.attention.fill, order.model.package, result.taps, reading.passage, field
            )
            resources.metrics.attention_sent(labels, bytes_of(attention))
        resources.metrics.input_served(labels, reading.source.length, result.phases)
        return _Embedded(reading, result, attention)


def logits_of(spec: SimilaritySpec, images: Matrix, texts: Matrix) -> Matrix:
    """Return the logits [I, T] of embeddings [I, E] and [T, E]."""
    return spec.logit_scale * (images @ texts.T) + spec.logit_bias


def probabilities_of(spec: SimilaritySpec, logits: Matrix) -> Matrix:
    """Return the probabilities [I, T]: of an image's texts against each other, or of each pair by itself."""
    return convert.probabilities(spec.probabilities, logits)


def _of_stack(order: Order, stack: AttentionStack) -> Order:
    return replace(order, attention=order.attention.of_stack(stack) if order.attention else None)


def _images(
    spec: SimilaritySpec,
    images: Sequence[_Embedded | RegardError],
    texts: Sequence[_Embedded | RegardError],
    *,
    with_embeddings: bool,
) -> list[similarity_pb2.ImageResult]:
    places = [place for place, text in enumerate(texts) if isinstance(text, _Embedded)]
    logits = np.zeros((len(images), len(places)))
    seen = [place for place, image in enumerate(images) if isinstance(image, _Embedded)]
    if places and seen:
        logits[seen] = logits_of(spec, _stacked(images), _stacked(texts))
    probabilities = probabilities_of(spec, logits) if places else logits
    results = []
    for image, own_logits, own_probabilities in zip(images, logits, probabilities, strict=True):
        if isinstance(image, RegardError):
            results.append(similarity_pb2.ImageResult(failure=convert.failure(image)))
            continue
        scores = zip(places, own_logits, own_probabilities, strict=True)
        compared = similarity_pb2.ComparedImage(
            scores=[
                similarity_pb2.TextScore(text_index=place, logit=logit, probability=probability)
                for place, logit, probability in scores
            ],
            embedding=image.result.output.tolist() if with_embeddings else (),
            attention=image.attention,
            timing=convert.timing(image.result.phases),
        )
        results.append(similarity_pb2.ImageResult(image=compared))
    return results


def _stacked(outcomes: Sequence[_Embedded | RegardError]) -> Matrix:
    found = [one.result.output for one in outcomes if isinstance(one, _Embedded)]
    return np.stack(found).astype(np.float64)


def _text(text: _Embedded | RegardError, *, with_embedding: bool) -> similarity_pb2.TextResult:
    if isinstance(text, RegardError):
        return similarity_pb2.TextResult(failure=convert.failure(text))
    return similarity_pb2.TextResult(
        text=similarity_pb2.ComparedText(
            source_tokens=text.reading.source.length,
            truncated=text.reading.truncated,
            embedding=text.result.output.tolist() if with_embedding else (),
            attention=text.attention,
            timing=convert.timing(text.result.phases),
        )
    )

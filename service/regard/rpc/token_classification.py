"""What `ClassificationService` does for every token of a text, and the entities that they make up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from regard.engine.request import Classification
from regard.errors import EngineError, InvalidInputError, RegardError
from regard.manifest import ClassificationSpec, Task
from regard.rpc import convert
from regard.rpc.attention import bytes_of
from regard.rpc.inputs import gather
from regard.rpc.interventions import InterventionOrder, intervention_order
from regard.rpc.reading import Reading, TextReading
from regard.rpc.resources import Order, Resources
from regard.text.entities import Aggregation, ClassifiedToken, entities_of
from regard.v1 import classification_pb2

OUTSIDE = ("O",)
MOST_IGNORED = 1024
AGGREGATIONS = {
    Aggregation.NONE: classification_pb2.ENTITY_AGGREGATION_NONE,
    Aggregation.SIMPLE: classification_pb2.ENTITY_AGGREGATION_SIMPLE,
    Aggregation.FIRST: classification_pb2.ENTITY_AGGREGATION_FIRST,
    Aggregation.AVERAGE: classification_pb2.ENTITY_AGGREGATION_AVERAGE,
    Aggregation.MAX: classification_pb2.ENTITY_AGGREGATION_MAX,
}


@dataclass(frozen=True, slots=True)
class _TokensOrder(Order):
    spec: ClassificationSpec
    top_k: int
    aggregation: Aggregation
    ignored: tuple[str, ...]
    interventions: InterventionOrder | None


class TokenClassifications:
    """Classifies tokens with the models of a catalog."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    async def classify(
        self, request: classification_pb2.ClassifyTokensRequest
    ) -> classification_pb2.ClassifyTokensResponse:
        """Return a result for each text."""
        order = self._order(request)
        outcomes = await gather(self._classify(order, f"texts[{i}]", text) for i, text in enumerate(request.texts))
        return classification_pb2.ClassifyTokensResponse(
            model=convert.model_version(order.model.manifest),
            results=[
                classification_pb2.TokenClassificationResult(failure=convert.failure(outcome))
                if isinstance(outcome, RegardError)
                else classification_pb2.TokenClassificationResult(classification=outcome)
                for outcome in outcomes
            ],
        )

    def _order(self, request: classification_pb2.ClassifyTokensRequest) -> _TokensOrder:
        texts = len(request.texts)
        order = self._resources.order(
            request, Task.TOKEN_CLASSIFICATION, inputs=texts, field="texts", sharing=texts, truncate=request.truncate
        )
        spec = classes_of(order)
        aggregation = Aggregation.SIMPLE
        if request.aggregation:
            aggregation = convert.one_of(request.aggregation, AGGREGATIONS, "aggregation")
        return _TokensOrder(
            order.model,
            order.call,
            order.truncate,
            order.attention,
            spec,
            top_k_of(request.top_k, order, spec) or 1,
            aggregation,
            _ignored(request.ignored_labels) or OUTSIDE,
            intervention_order(
                request.interventions, order.model.manifest, self._resources.settings.max_attention_bytes // texts
            ),
        )

    async def _classify(self, order: _TokensOrder, field: str, text: str) -> classification_pb2.TokenClassification:
        resources = self._resources
        with resources.one_input(order):
            reading = await resources.read_text(order, text, field)
            interventions = await resources.interventions(order.interventions, reading, field)
            result = await resources.answer(order, reading.source, interventions=interventions)
            classification = await resources.offload(_decode, order, reading, result, field)
            labels = order.model.labels
            resources.metrics.input_served(labels, reading.source.length, result.phases)
            if order.attention:
                resources.metrics.attention_sent(labels, bytes_of(classification.attention))
            return classification


def _ignored(labels: Sequence[str]) -> tuple[str, ...]:
    if len(labels) > MOST_IGNORED:
        raise InvalidInputError(
            f"ignored_labels has {len(labels)} labels; at most {MOST_IGNORED} are left out", field="ignored_labels"
        )
    return tuple(labels)


def classes_of(order: Order) -> ClassificationSpec:
    """Return what the model's package says of its classes."""
    spec = order.model.manifest.classification
    if spec is None:
        raise EngineError(f"package {order.model.label} does not name its classes")
    return spec


def top_k_of(top_k: int, order: Order, spec: ClassificationSpec) -> int:
    """Return `top_k`, 0 for the default. Raises `InvalidInputError` if the model has fewer classes."""
    if top_k > len(spec.labels):
        raise InvalidInputError(
            f"top_k is {top_k}; model {order.model.manifest.name} has {len(spec.labels)} classes", field="top_k"
        )
    return top_k


def _decode(
    order: _TokensOrder, reading: Reading, result: Classification, field: str
) -> classification_pb2.TokenClassification:
    assert isinstance(reading, TextReading) and order.model.text is not None
    encoded, probabilities = reading.encoded, convert.softmax(result.output)
    subwords = order.model.text.subwords(encoded)
    spoken = {
        index: ClassifiedToken(segment, probabilities[index], subwords[index])
        for index, segment in enumerate(encoded.segments)
        if not segment.special
    }
    entities = entities_of(list(spoken.values()), order.spec.labels, order.aggregation, order.ignored)
    classification = classification_pb2.TokenClassification(
        tokens=[
            classification_pb2.ClassifiedToken(
                token=token.segment.text,
                token_id=int(encoded.token_ids[index]),
                index=index,
                start=token.segment.start,
                end=token.segment.end,
                classes=convert.classes(token.probabilities, order.spec.labels, order.top_k),
            )
            for index, token in spoken.items()
        ],
        entities=[
            classification_pb2.Entity(
                label=entity.label,
                score=entity.score,
                text=reading.text[entity.start : entity.end],
                start=entity.start,
                end=entity.end,
            )
            for entity in entities
        ],
        source_tokens=reading.source.length,
        truncated=reading.truncated,
        timing=convert.timing(result.phases),
    )
    if order.attention:
        attention = order.attention.fill(order.model.package, result.taps, reading.passage, field)
        classification.attention.CopyFrom(attention)
    return classification

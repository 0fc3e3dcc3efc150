"""`regard.v1.ClassificationService`: inputs to tokens, through the worker, to classes."""

from __future__ import annotations

from dataclasses import dataclass

from regard.engine.request import Classification
from regard.errors import InvalidInputError, RegardError
from regard.manifest import ClassificationSpec, Task
from regard.rpc import convert
from regard.rpc.attention import bytes_of
from regard.rpc.inputs import gather
from regard.rpc.interceptor import Context
from regard.rpc.interventions import InterventionOrder, intervention_order
from regard.rpc.reading import Reading
from regard.rpc.resources import Order, Resources
from regard.rpc.token_classification import TokenClassifications, classes_of, top_k_of
from regard.v1 import classification_pb2, classification_pb2_grpc

BRIEF_CLASSES = 50
"""So many are told sooner (a microsecond each) than a thread is reached."""
DEFAULT_TOP_K = 5


@dataclass(frozen=True, slots=True)
class _ClassifyOrder(Order):
    spec: ClassificationSpec
    top_k: int
    interventions: InterventionOrder | None


class ClassificationService(classification_pb2_grpc.ClassificationServiceServicer):
    """Classifies with the models of a catalog."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._tokens = TokenClassifications(resources)

    async def Classify(  # noqa: N802
        self, request: classification_pb2.ClassifyRequest, context: Context
    ) -> classification_pb2.ClassifyResponse:
        """Return a result for each input."""
        order = self._order(request)
        outcomes = await gather(self._classify(order, index, one) for index, one in enumerate(request.inputs))
        return classification_pb2.ClassifyResponse(
            model=convert.model_version(order.model.manifest),
            results=[
                classification_pb2.ClassificationResult(failure=convert.failure(outcome))
                if isinstance(outcome, RegardError)
                else classification_pb2.ClassificationResult(classification=outcome)
                for outcome in outcomes
            ],
        )

    async def ClassifyTokens(  # noqa: N802
        self, request: classification_pb2.ClassifyTokensRequest, context: Context
    ) -> classification_pb2.ClassifyTokensResponse:
        """Return a result for each text."""
        return await self._tokens.classify(request)

    def _order(self, request: classification_pb2.ClassifyRequest) -> _ClassifyOrder:
        inputs = len(request.inputs)
        order = self._resources.order(
            request, Task.CLASSIFICATION, inputs=inputs, field="inputs", sharing=inputs, truncate=request.truncate
        )
        spec = classes_of(order)
        top_k = top_k_of(request.top_k, order, spec) or min(DEFAULT_TOP_K, len(spec.labels))
        max_bytes = self._resources.settings.max_attention_bytes // inputs
        interventions = intervention_order(request.interventions, order.model.manifest, max_bytes)
        return _ClassifyOrder(order.model, order.call, order.truncate, order.attention, spec, top_k, interventions)

    async def _classify(
        self, order: _ClassifyOrder, index: int, one: classification_pb2.ClassificationInput
    ) -> classification_pb2.Classification:
        resources, field = self._resources, f"inputs[{index}]"
        with resources.one_input(order):
            reading = await read_input(resources, order, one, field)
            interventions = await resources.interventions(order.interventions, reading, field)
            result = await resources.answer(order, reading.source, interventions=interventions)
            if order.attention is None and order.top_k <= BRIEF_CLASSES:
                classification = _decode(order, reading, result, field)
            else:
                classification = await resources.offload(_decode, order, reading, result, field)
            labels = order.model.labels
            resources.metrics.input_served(labels, reading.source.length, result.phases)
            if order.attention:
                resources.metrics.attention_sent(labels, bytes_of(classification.attention))
            return classification


def _decode(
    order: _ClassifyOrder, reading: Reading, result: Classification, field: str
) -> classification_pb2.Classification:
    classes = convert.classes(
        convert.probabilities(order.spec.probabilities, result.output), order.spec.labels, order.top_k
    )
    classification = classification_pb2.Classification(
        classes=classes,
        out_of_scope=convert.out_of_scope(classes[0], order.spec),
        source_tokens=reading.source.length,
        truncated=reading.truncated,
        timing=convert.timing(result.phases),
    )
    if order.attention:
        attention = order.attention.fill(order.model.package, result.taps, reading.passage, field)
        classification.attention.CopyFrom(attention)
    return classification


async def read_input(
    resources: Resources, order: Order, one: classification_pb2.ClassificationInput, field: str
) -> Reading:
    """Return what a model is to classify. Raises `InvalidInputError` for what it can't take."""
    paired = one.HasField("text_pair")
    match one.WhichOneof("content"):
        case "text" if paired:
            return await resources.read_pair(order, one.text, one.text_pair, f"{field}.text", f"{field}.text_pair")
        case _ if paired:
            raise InvalidInputError(
                f"{field}.text_pair is the second of two texts: set text", field=f"{field}.text_pair"
            )
        case "text":
            return await resources.read_text(order, one.text, f"{field}.text")
        case "image":
            return await resources.read_image(order, one.image, f"{field}.image")
        case _:
            raise InvalidInputError(f"{field} has no content; set its text or its image", field=field)

"""`regard.v1.AttributionService`: which parts of an input made the model answer as it did."""

from __future__ import annotations

from dataclasses import dataclass, replace

from regard.attention.parts import parts_of
from regard.engine.source import Source
from regard.errors import InvalidInputError, RegardError
from regard.manifest import ClassificationSpec, Task
from regard.rpc import convert
from regard.rpc.attending import SelfAttention
from regard.rpc.attribution_messages import attributions, wish_of
from regard.rpc.classification import read_input
from regard.rpc.erasing import eraser_of
from regard.rpc.explaining import Explainer, Explanation, Floats, Method, Subject, Wish, places_of
from regard.rpc.inputs import gather
from regard.rpc.interceptor import Context
from regard.rpc.reading import ImageReading, TextReading
from regard.rpc.resources import Order, Resources
from regard.rpc.token_classification import classes_of
from regard.v1 import attribution_pb2, attribution_pb2_grpc, classification_pb2
from regard.vision.overlay import draw_overlays
from regard.vision.picture import ImageLimits


@dataclass(frozen=True, slots=True)
class _ClassOrder(Order):
    spec: ClassificationSpec
    explained: int | None
    """The class to explain; None for the likeliest."""
    explainer: Explainer
    max_attention_bytes: int
    """The most that is read of the model's attention, for one input."""


class AttributionService(attribution_pb2_grpc.AttributionServiceServicer):
    """Explains the answers of the models of a catalog."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    async def AttributeClass(  # noqa: N802
        self, request: attribution_pb2.AttributeClassRequest, context: Context
    ) -> attribution_pb2.AttributeClassResponse:
        """Return a result for each input."""
        order = self._class_order(request)
        outcomes = await gather(self._attribute_class(order, index, one) for index, one in enumerate(request.inputs))
        return attribution_pb2.AttributeClassResponse(
            model=convert.model_version(order.model.manifest),
            results=[
                attribution_pb2.ClassAttributionResult(failure=convert.failure(outcome))
                if isinstance(outcome, RegardError)
                else attribution_pb2.ClassAttributionResult(attribution=outcome)
                for outcome in outcomes
            ],
        )

    def _class_order(self, request: attribution_pb2.AttributeClassRequest) -> _ClassOrder:
        order = self._resources.plain_order(
            request, Task.CLASSIFICATION, inputs=len(request.inputs), field="inputs", truncate=request.truncate
        )
        order.call.labels = replace(order.model.labels, task="attribution")
        spec, explained = classes_of(order), None
        if request.label:
            if request.label not in spec.labels:
                raise InvalidInputError(
                    f"label: model {order.model.manifest.name} has no class {request.label!r}; "
                    "ListModels tells those that it has",
                    field="label",
                )
            explained = spec.labels.index(request.label)
        settings = self._resources.settings
        explainer = Explainer(wish_of(request.attribution), settings.max_attribution_runs, places_of(settings.engine))
        most = settings.max_attention_bytes // len(request.inputs)
        return _ClassOrder(order.model, order.call, order.truncate, None, spec, explained, explainer, most)

    async def _attribute_class(
        self, order: _ClassOrder, index: int, one: classification_pb2.ClassificationInput
    ) -> attribution_pb2.ClassAttribution:
        resources, field = self._resources, f"inputs[{index}]"
        with resources.one_input(order):
            reading = await read_input(resources, order, one, field)
            assert isinstance(reading, TextReading | ImageReading)
            parts = parts_of(reading.passage, order.explainer.wish.granularity, field)
            attention = SelfAttention.of(
                order.explainer.wish, order.model.manifest, reading.source.length, order.max_attention_bytes
            )
            result = await resources.answer(order, reading.source, attention.taps)
            probabilities = convert.softmax(result.output)
            explained = int(probabilities.argmax()) if order.explained is None else order.explained

            async def score(source: Source) -> Floats:
                answered = await resources.answer(order, source)
                return convert.softmax(answered.output)[[explained]]

            attended = await resources.offload(attention.read, result.taps, parts)
            eraser = eraser_of(reading, parts, order.model.text)
            subject = Subject(parts, eraser, probabilities[[explained]], score, _only, attended)
            explanation = await order.explainer.explain(subject, field)
            overlays = await draw(resources, order.explainer.wish, one.image, subject, explanation, f"{field}.image")
            classes = convert.classes(probabilities, order.spec.labels, len(order.spec.labels))
            return attribution_pb2.ClassAttribution(
                explained=next(one for one in classes if one.index == explained),
                likeliest=classes[0],
                attributions=attributions(order.model.package, subject, explanation, overlays),
            )


async def draw(
    resources: Resources, wish: Wish, image: bytes, subject: Subject, explanation: Explanation, field: str
) -> dict[Method, bytes]:
    """Return what each method tells over the image that it tells it of, in the threads; nothing if it isn't asked."""
    grid = subject.parts.grid
    if grid is None or not wish.overlay:
        return {}
    limits = ImageLimits(resources.settings.max_image_bytes, resources.settings.max_image_pixels)
    maps = [weights.sum(axis=0) for weights in explanation.weights.values()]
    drawn = await resources.offload(draw_overlays, image, limits, field, maps, grid)
    return dict(zip(explanation.weights, drawn, strict=True))


def _only(outcomes: Floats) -> float:
    return float(outcomes[0])

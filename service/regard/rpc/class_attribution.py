"""Which parts of an input made a class likely."""

from __future__ import annotations

from dataclasses import dataclass, replace

from regard.attention.parts import parts_of
from regard.engine.interventions import Interventions
from regard.engine.source import Source
from regard.errors import InvalidInputError, quoted
from regard.manifest import ClassificationSpec, Task
from regard.rpc import convert
from regard.rpc.attending import SelfAttention
from regard.rpc.attribution_messages import attributions, wish_of
from regard.rpc.classification import read_input
from regard.rpc.erasing import eraser_of
from regard.rpc.explaining import Explainer, Floats, Subject, explainer_of
from regard.rpc.overlays import Overlays
from regard.rpc.reading import ImageReading, TextReading
from regard.rpc.resources import Order, Resources
from regard.rpc.token_classification import classes_of
from regard.v1 import attribution_pb2, classification_pb2


@dataclass(frozen=True, slots=True)
class ClassOrder(Order):
    """What a request asks of each of its inputs."""

    spec: ClassificationSpec
    explained: int | None
    """The class to explain; None for the likeliest."""
    explainer: Explainer
    overlays: Overlays


class ClassAttributions:
    """Explains the classes of a request's inputs."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    def order(self, request: attribution_pb2.AttributeClassRequest) -> ClassOrder:
        """Check what concerns all inputs of a request; raises what `Resources.order` and `wish_of` do."""
        inputs = len(request.inputs)
        order = self._resources.order(
            request, Task.CLASSIFICATION, inputs=inputs, field="inputs", sharing=inputs, truncate=request.truncate
        )
        order.call.labels = replace(order.model.labels, task="attribution")
        spec, explained = classes_of(order), None
        if request.label:
            if request.label not in spec.labels:
                raise InvalidInputError(
                    f"label: model {order.model.manifest.name} has no class {quoted(request.label)}; "
                    "ListModels tells those that it has",
                    field="label",
                )
            explained = spec.labels.index(request.label)
        wish = wish_of(request.attribution, order.model.manifest)
        explainer = explainer_of(wish, self._resources, order.model, inputs)
        overlays = Overlays(self._resources, wish)
        return ClassOrder(order.model, order.call, order.truncate, None, spec, explained, explainer, overlays)

    async def run(
        self, order: ClassOrder, one: classification_pb2.ClassificationInput, field: str
    ) -> attribution_pb2.ClassAttribution:
        """Return which parts of one input made the class likely."""
        resources = self._resources
        with resources.one_input(order):
            reading = await read_input(resources, order, one, field)
            assert isinstance(reading, TextReading | ImageReading)
            wish, most = order.explainer.wish, order.explainer.max_attention_bytes
            parts = parts_of(reading.passage, wish.granularity, field)
            attention = SelfAttention.of(wish, order.model.manifest, reading.source.length, most, field)
            result = await resources.answer(order, reading.source, attention.taps)
            probabilities = convert.probabilities(order.spec.probabilities, result.output)
            explained = int(probabilities.argmax()) if order.explained is None else order.explained

            async def score(source: Source, interventions: Interventions) -> Floats:
                answered = await resources.answer(order, source, interventions=interventions)
                return convert.probabilities(order.spec.probabilities, answered.output)[[explained]]

            attended = await resources.offload(attention.read, result.taps, parts)
            eraser = await resources.offload(eraser_of, reading, parts, order.model.text)
            subject = Subject(parts, eraser, probabilities[[explained]], score, _only, attended)
            explanation = await order.explainer.explain(subject, field)
            overlays = await order.overlays.draw(one.image, subject, explanation, f"{field}.image")
            classes = convert.classes(probabilities, order.spec.labels, len(order.spec.labels))
            return attribution_pb2.ClassAttribution(
                explained=next(one for one in classes if one.index == explained),
                likeliest=classes[0],
                attributions=attributions(order.model.package, wish, subject, explanation, overlays),
            )


def _only(outcomes: Floats) -> float:
    return float(outcomes[0])

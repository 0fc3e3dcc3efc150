"""`regard.v1.AttributionService`: which parts of an input made the model answer as it did."""

from __future__ import annotations

from collections.abc import Sequence

from regard.errors import RegardError
from regard.manifest import Task
from regard.rpc import convert
from regard.rpc.class_attribution import ClassAttributions
from regard.rpc.inputs import gather
from regard.rpc.interceptor import Context
from regard.rpc.output_attribution import OutputAttributions
from regard.rpc.resources import Resources
from regard.v1 import attribution_pb2, attribution_pb2_grpc


class AttributionService(attribution_pb2_grpc.AttributionServiceServicer):
    """Explains the answers of the models of a catalog."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._classes = ClassAttributions(resources)
        self._outputs = OutputAttributions(resources)

    async def AttributeClass(  # noqa: N802
        self, request: attribution_pb2.AttributeClassRequest, context: Context
    ) -> attribution_pb2.AttributeClassResponse:
        """Return a result for each input."""
        order = self._classes.order(request)
        outcomes = await gather(
            self._classes.run(order, one, f"inputs[{index}]") for index, one in enumerate(request.inputs)
        )
        return attribution_pb2.AttributeClassResponse(
            model=convert.model_version(order.model.manifest),
            results=[
                attribution_pb2.ClassAttributionResult(failure=convert.failure(outcome))
                if isinstance(outcome, RegardError)
                else attribution_pb2.ClassAttributionResult(attribution=outcome)
                for outcome in outcomes
            ],
        )

    async def AttributeTranslation(  # noqa: N802
        self, request: attribution_pb2.AttributeTranslationRequest, context: Context
    ) -> attribution_pb2.AttributeTranslationResponse:
        """Return a result for each text."""
        order = await self._outputs.order(request, Task.TRANSLATION, truncate=request.truncate)
        outcomes = await gather(
            self._outputs.run(
                order,
                self._resources.read_text(order.generate, one.text, f"inputs[{index}].text"),
                one.target if one.HasField("target") else None,
                f"inputs[{index}]",
            )
            for index, one in enumerate(request.inputs)
        )
        return attribution_pb2.AttributeTranslationResponse(
            model=convert.model_version(order.generate.model.manifest), results=_results(outcomes)
        )

    async def AttributeCaption(  # noqa: N802
        self, request: attribution_pb2.AttributeCaptionRequest, context: Context
    ) -> attribution_pb2.AttributeCaptionResponse:
        """Return a result for each image."""
        order = await self._outputs.order(request, Task.CAPTIONING)
        outcomes = await gather(
            self._outputs.run(
                order,
                self._resources.read_image(order.generate, one.image, f"inputs[{index}].image"),
                one.caption if one.HasField("caption") else None,
                f"inputs[{index}]",
                image=one.image,
            )
            for index, one in enumerate(request.inputs)
        )
        return attribution_pb2.AttributeCaptionResponse(
            model=convert.model_version(order.generate.model.manifest), results=_results(outcomes)
        )


def _results(
    outcomes: Sequence[attribution_pb2.OutputAttribution | RegardError],
) -> list[attribution_pb2.OutputAttributionResult]:
    return [
        attribution_pb2.OutputAttributionResult(failure=convert.failure(outcome))
        if isinstance(outcome, RegardError)
        else attribution_pb2.OutputAttributionResult(attribution=outcome)
        for outcome in outcomes
    ]

"""`regard.v1.CaptionService`: images to pixel values, through the worker, to texts."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from regard.errors import RegardError
from regard.manifest import Task
from regard.rpc import convert
from regard.rpc.generation import GenerateOrder, Generations, Product
from regard.rpc.inputs import gather, merge
from regard.rpc.interceptor import Context
from regard.rpc.resources import Resources
from regard.v1 import caption_pb2, caption_pb2_grpc


class CaptionService(caption_pb2_grpc.CaptionServiceServicer):
    """Captions with the models of a catalog."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._generations = Generations(resources)

    async def Caption(  # noqa: N802
        self, request: caption_pb2.CaptionRequest, context: Context
    ) -> caption_pb2.CaptionResponse:
        """Return a result for each image."""
        order = await self._order(request, streaming=False)
        outcomes = await gather(
            self._generations.run(order, self._resources.read_image(order, image, field), field)
            for field, image in _fields(request)
        )
        return caption_pb2.CaptionResponse(
            model=convert.model_version(order.model.manifest),
            results=[
                caption_pb2.CaptionResult(failure=convert.failure(outcome))
                if isinstance(outcome, RegardError)
                else caption_pb2.CaptionResult(caption=_caption(outcome))
                for outcome in outcomes
            ],
        )

    async def StreamCaption(  # noqa: N802
        self, request: caption_pb2.StreamCaptionRequest, context: Context
    ) -> AsyncGenerator[caption_pb2.StreamCaptionResponse, None]:
        """Yield the tokens of every caption as they are made, and each image's result as its last event."""
        order = await self._order(request, streaming=True)
        streams = [
            self._generations.stream(order, self._resources.read_image(order, image, field), field)
            for field, image in _fields(request)
        ]
        respond, model = caption_pb2.StreamCaptionResponse, convert.model_version(order.model.manifest)
        async with aclosing(merge(streams)) as events:
            async for index, event in events:
                if isinstance(event, RegardError):
                    yield respond(input_index=index, failure=convert.failure(event), model=model)
                elif isinstance(event, Product):
                    yield respond(input_index=index, caption=_caption(event), model=model)
                else:
                    yield respond(input_index=index, delta=event)

    async def _order(
        self, request: caption_pb2.CaptionRequest | caption_pb2.StreamCaptionRequest, *, streaming: bool
    ) -> GenerateOrder:
        return await self._generations.order(
            request,
            Task.CAPTIONING,
            inputs=len(request.images),
            field="images",
            streaming=streaming,
            interventions=request.interventions,
        )


def _fields(request: caption_pb2.CaptionRequest | caption_pb2.StreamCaptionRequest) -> list[tuple[str, bytes]]:
    return [(f"images[{index}]", image) for index, image in enumerate(request.images)]


def _caption(product: Product) -> caption_pb2.Caption:
    return caption_pb2.Caption(
        text=product.best.text,
        finish_reason=product.best.finish_reason,
        target_tokens=product.best.target_tokens,
        log_probability=product.best.log_probability,
        score=product.best.score,
        tokens=product.best.tokens,
        attention=product.attention,
        further_sequences=product.further,
        timing=product.timing,
    )

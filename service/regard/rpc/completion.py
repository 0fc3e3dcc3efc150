"""`regard.v1.CompletionService`: prompts to tokens, through the worker, to the texts that follow them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing

from regard.errors import RegardError
from regard.manifest import Task
from regard.rpc import convert
from regard.rpc.generation import GenerateOrder, Generations, Product
from regard.rpc.inputs import gather, merge
from regard.rpc.interceptor import Context
from regard.rpc.reading import Reading
from regard.rpc.resources import Resources
from regard.v1 import completion_pb2, completion_pb2_grpc

Request = completion_pb2.CompleteRequest | completion_pb2.StreamCompleteRequest


class CompletionService(completion_pb2_grpc.CompletionServiceServicer):
    """Completes with the models of a catalog."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._generations = Generations(resources)

    async def Complete(  # noqa: N802
        self, request: completion_pb2.CompleteRequest, context: Context
    ) -> completion_pb2.CompleteResponse:
        """Return a result for each prompt."""
        order = await self._order(request, streaming=False)
        outcomes = await gather(
            self._generations.run(order, self._read(request, order, prompt, field), field)
            for field, prompt in _fields(request)
        )
        return completion_pb2.CompleteResponse(
            model=convert.model_version(order.model.manifest),
            results=[
                completion_pb2.CompletionResult(failure=convert.failure(outcome))
                if isinstance(outcome, RegardError)
                else completion_pb2.CompletionResult(completion=_completion(outcome))
                for outcome in outcomes
            ],
        )

    async def StreamComplete(  # noqa: N802
        self, request: completion_pb2.StreamCompleteRequest, context: Context
    ) -> AsyncGenerator[completion_pb2.StreamCompleteResponse, None]:
        """Yield the tokens of every prompt as they are made, and each prompt's result as its last event."""
        order = await self._order(request, streaming=True)
        streams = [
            self._generations.stream(order, self._read(request, order, prompt, field), field)
            for field, prompt in _fields(request)
        ]
        respond, model = completion_pb2.StreamCompleteResponse, convert.model_version(order.model.manifest)
        async with aclosing(merge(streams)) as events:
            async for index, event in events:
                if isinstance(event, RegardError):
                    yield respond(input_index=index, failure=convert.failure(event), model=model)
                elif isinstance(event, Product):
                    yield respond(input_index=index, completion=_completion(event), model=model)
                else:
                    yield respond(input_index=index, delta=event)

    def _read(self, request: Request, order: GenerateOrder, prompt: str, field: str) -> Awaitable[Reading]:
        return self._resources.read_text(order, prompt, field, templated=request.templated)

    async def _order(self, request: Request, *, streaming: bool) -> GenerateOrder:
        return await self._generations.order(
            request,
            Task.COMPLETION,
            inputs=len(request.prompts),
            field="prompts",
            streaming=streaming,
        )


def _fields(request: Request) -> list[tuple[str, str]]:
    return [(f"prompts[{index}]", prompt) for index, prompt in enumerate(request.prompts)]


def _completion(product: Product) -> completion_pb2.Completion:
    return completion_pb2.Completion(
        text=product.best.text,
        finish_reason=product.best.finish_reason,
        prompt_tokens=product.source_tokens,
        target_tokens=product.best.target_tokens,
        log_probability=product.best.log_probability,
        score=product.best.score,
        tokens=product.best.tokens,
        attention=product.attention,
        further_sequences=product.further,
        timing=product.timing,
    )

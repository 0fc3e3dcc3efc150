"""`regard.v1.QuestionAnsweringService`: questions and contexts to windows of tokens, through the worker, to spans."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from regard.engine.request import Classification, Phases
from regard.errors import InvalidInputError, RegardError
from regard.manifest import Task
from regard.rpc import convert
from regard.rpc.attention import bytes_of
from regard.rpc.inputs import gather
from regard.rpc.interceptor import Context
from regard.rpc.patience import patiently
from regard.rpc.reading import TextReading
from regard.rpc.resources import Order, Resources
from regard.text.answering import Ends
from regard.v1 import question_answering_pb2, question_answering_pb2_grpc

DEFAULT_MAX_ANSWER_TOKENS = 15
DEFAULT_WINDOW_TOKENS = 384
MOST_ANSWERS = 100


@dataclass(frozen=True, slots=True)
class _AnswerOrder(Order):
    top_k: int
    max_answer_tokens: int
    impossible: bool
    whole_words: bool
    window_tokens: int
    overlap_tokens: int | None
    places: asyncio.Semaphore
    """For the windows of all inputs; the others wait."""


@dataclass(frozen=True, slots=True)
class _Found:
    """A span of the context's characters, its score, and the window that it was found in."""

    start: int
    end: int
    score: float
    window: int


class QuestionAnsweringService(question_answering_pb2_grpc.QuestionAnsweringServiceServicer):
    """Answers with the models of a catalog."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    async def Answer(  # noqa: N802
        self, request: question_answering_pb2.AnswerRequest, context: Context
    ) -> question_answering_pb2.AnswerResponse:
        """Return a result for each question."""
        order = self._order(request)
        outcomes = await gather(self._answer(order, f"inputs[{i}]", one) for i, one in enumerate(request.inputs))
        return question_answering_pb2.AnswerResponse(
            model=convert.model_version(order.model.manifest),
            results=[
                question_answering_pb2.AnswerResult(failure=convert.failure(outcome))
                if isinstance(outcome, RegardError)
                else question_answering_pb2.AnswerResult(answered=outcome)
                for outcome in outcomes
            ],
        )

    def _order(self, request: question_answering_pb2.AnswerRequest) -> _AnswerOrder:
        inputs = len(request.inputs)
        order = self._resources.order(request, Task.QUESTION_ANSWERING, inputs=inputs, field="inputs", sharing=inputs)
        if request.top_k > MOST_ANSWERS:
            raise InvalidInputError(f"top_k is {request.top_k}; at most {MOST_ANSWERS} are returned", field="top_k")
        return _AnswerOrder(
            order.model,
            order.call,
            order.truncate,
            order.attention,
            top_k=request.top_k or 1,
            max_answer_tokens=request.max_answer_tokens or DEFAULT_MAX_ANSWER_TOKENS,
            impossible=request.handle_impossible_answer,
            whole_words=not request.HasField("align_to_words") or request.align_to_words,
            window_tokens=request.window_tokens or DEFAULT_WINDOW_TOKENS,
            overlap_tokens=request.overlap_tokens if request.HasField("overlap_tokens") else None,
            places=self._resources.places(order.model),
        )

    async def _answer(
        self, order: _AnswerOrder, field: str, one: question_answering_pb2.QuestionInput
    ) -> question_answering_pb2.AnsweredQuestion:
        resources = self._resources
        with resources.one_input(order):
            windows = await resources.read_windows(
                order, one.question, one.context, order.window_tokens, order.overlap_tokens, field
            )
            alone = len(windows) == 1
            results = await self._run(order if alone else replace(order, attention=None), windows)
            answered, best = await resources.offload(_decode, order, one.context, windows, results)
            tokens, labels = sum(window.source.length for window in windows), order.model.labels
            resources.metrics.input_served(labels, tokens, _together(results))
            if order.attention:
                [seen] = [results[best]] if alone else await self._run(order, [windows[best]], begun=True)
                attention = await resources.offload(
                    order.attention.fill, order.model.package, seen.taps, windows[best].passage, field
                )
                answered.attention.CopyFrom(attention)
                resources.metrics.attention_sent(labels, bytes_of(attention))
            return answered

    async def _run(
        self, order: _AnswerOrder, windows: Sequence[TextReading], *, begun: bool = False
    ) -> list[Classification]:
        """Run all windows side by side, as far as there are places; the first that fails ends the others.

        A full queue refuses the first window of an input that has not `begun`; all others wait.
        """

        async def run(window: TextReading) -> Classification:
            async with order.places:
                answer = partial(self._resources.answer, order, window.source)
                return await (patiently(answer) if begun or window is not windows[0] else answer())

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(run(window)) for window in windows]
        except* RegardError as errors:
            failed: BaseException = errors
            while isinstance(failed, BaseExceptionGroup):
                failed = failed.exceptions[0]
            raise failed from None
        return [task.result() for task in tasks]


def _decode(
    order: _AnswerOrder, context: str, windows: Sequence[TextReading], results: Sequence[Classification]
) -> tuple[question_answering_pb2.AnsweredQuestion, int]:
    """Return the answers, and the window of the best."""
    ends = [_ends(window, result) for window, result in zip(windows, results, strict=True)]
    null_score = min(each.null_score for each in ends)
    found = _best(order, windows, ends)
    best = found[0].window if found else 0
    if order.impossible:
        found = [*found, _Found(0, 0, null_score, best)]
    found = sorted(found, key=lambda one: -one.score)[: order.top_k]
    answered = question_answering_pb2.AnsweredQuestion(
        answers=[
            question_answering_pb2.AnswerSpan(
                text=context[one.start : one.end], score=one.score, start=one.start, end=one.end
            )
            for one in found
        ],
        null_score=null_score,
        windows=len(windows),
        source_tokens=sum(window.source.length for window in windows),
        timing=convert.timing(_together(results)),
    )
    return answered, best


def _ends(window: TextReading, result: Classification) -> Ends:
    segments = window.encoded.segments
    context = [place for place, segment in enumerate(segments) if segment.part == 1 and not segment.special]
    return Ends.of(result.output, context, window.encoded.null_position)


def _best(order: _AnswerOrder, windows: Sequence[TextReading], ends: Sequence[Ends]) -> list[_Found]:
    """Return the best `top_k` spans of characters, each with its best score over tokens and windows."""
    best: dict[tuple[int, int], _Found] = {}
    for number, (window, each) in enumerate(zip(windows, ends, strict=True)):
        own: set[tuple[int, int]] = set()
        for span in each.spans(order.max_answer_tokens):
            if len(own) == order.top_k:
                break
            place = window.encoded.span_of(span.first, span.last, whole_words=order.whole_words)
            own.add(place)
            if place not in best or best[place].score < span.score:
                best[place] = _Found(*place, span.score, number)
    return sorted(best.values(), key=lambda one: -one.score)[: order.top_k]


def _together(results: Sequence[Classification]) -> Phases:
    """Return the time of windows that ran side by side: the longest of each phase."""
    phases = [result.phases for result in results]
    return Phases(max(each.queue_s for each in phases), max(each.encode_s for each in phases))

"""StreamTranslate, as a caller sees it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator

import grpc
import pytest

from regard.errors import EngineError, InvalidInputError, QueueFullError, RegardError
from regard.rpc.inputs import merge
from regard.v1 import generation_pb2, translation_pb2, translation_pb2_grpc

from .conftest import Serve
from .scripted_worker import failing_for
from .test_translation import CAT, HELLO, refusal

Event = translation_pb2.StreamTranslateResponse


def request_of(*texts: str, **fields: object) -> translation_pb2.StreamTranslateRequest:
    """Return a request for the only translator."""
    return translation_pb2.StreamTranslateRequest(texts=texts, **fields)


def kinds_of(events: list[Event], index: int) -> list[str | None]:
    """Return what the events of one text are."""
    return [event.WhichOneof("event") for event in events if event.input_index == index]


async def test_deltas_put_together_are_the_translation(serve: Serve) -> None:
    """Every text's deltas join to its text, one for each token, and its last event is the whole."""
    async with serve() as running:
        events = [event async for event in running.translation.StreamTranslate(request_of(CAT, HELLO))]

    for index, text in enumerate((CAT, HELLO)):
        own = [event for event in events if event.input_index == index]
        deltas = [event.delta for event in own if event.HasField("delta")]
        assert "".join(delta.text for delta in deltas) == text
        assert own[-1].translation.text == text
        assert own[-1].translation.target_tokens == len(deltas) == len(own) - 1
        assert all(math.isclose(delta.log_probability, -0.5) for delta in deltas)


async def test_texts_take_turns(serve: Serve) -> None:
    """The events of two texts are interleaved: neither waits for the other to end."""
    async with serve() as running:
        worker = running.worker()
        worker.steps.clear()
        call = running.translation.StreamTranslate(request_of(CAT, CAT))
        await worker.until_inside(2)
        worker.steps.set()
        events = [event async for event in call]

    order = [event.input_index for event in events]
    assert order.index(1) < len(order) - 1 - order[::-1].index(0)
    assert order.index(0) < len(order) - 1 - order[::-1].index(1)


async def test_the_first_token_comes_before_the_last_is_made(serve: Serve) -> None:
    """An event is sent as soon as its token is there."""
    async with serve() as running:
        worker = running.worker()
        worker.pause_after = 1
        call = aiter(running.translation.StreamTranslate(request_of(CAT)))
        first = await anext(call)
        assert first.HasField("delta")
        assert worker.inside == 1
        worker.pause_after = None
        worker.steps.set()
        rest = [event async for event in call]

    assert rest[-1].HasField("translation")


async def test_a_generation_cut_by_its_length_leaves_no_text_behind(serve: Serve) -> None:
    """Deltas join to the text also where the end of the sentence was not reached."""
    async with serve() as running:
        request = request_of(CAT, generation={"max_new_tokens": 4})
        events = [event async for event in running.translation.StreamTranslate(request)]

    assert "".join(event.delta.text for event in events) == events[-1].translation.text
    assert events[-1].translation.finish_reason == generation_pb2.FINISH_REASON_LENGTH


async def test_attention_comes_with_the_last_event(serve: Serve) -> None:
    """A stream's attention is in the translation, not in the deltas."""
    async with serve() as running:
        events = [event async for event in running.translation.StreamTranslate(request_of(HELLO, attention={}))]

    assert len(events[-1].translation.attention.maps) == 2


async def test_a_bad_text_ends_with_a_failure_and_the_others_go_on(serve: Serve) -> None:
    """One text's failure is its only event."""
    async with serve() as running:
        events = [event async for event in running.translation.StreamTranslate(request_of(HELLO, " ", CAT))]

    assert kinds_of(events, 1) == ["failure"]
    assert kinds_of(events, 0)[-1] == kinds_of(events, 2)[-1] == "translation"
    assert next(event for event in events if event.input_index == 1).failure.field == "texts[1]"


async def test_the_last_event_of_each_text_names_the_model(serve: Serve) -> None:
    """What answered, and what refused a text, is told with the translation or the failure, and before neither."""
    async with serve() as running:
        events = [event async for event in running.translation.StreamTranslate(request_of(HELLO, " "))]
        unary = await running.translation.Translate(translation_pb2.TranslateRequest(texts=[HELLO]))

    last = [event for event in events if not event.HasField("delta")]
    assert [event.model for event in last] == [unary.model] * 2
    assert not any(event.HasField("model") for event in events if event.HasField("delta"))


async def test_only_bad_texts_are_failures_in_a_stream_that_ends_well(serve: Serve) -> None:
    """As in Translate, what is the texts' own fault is answered, not refused."""
    async with serve() as running:
        events = [event async for event in running.translation.StreamTranslate(request_of("", " "))]

    assert sorted(event.input_index for event in events) == [0, 1]
    assert {event.WhichOneof("event") for event in events} == {"failure"}


async def test_an_error_that_all_texts_share_ends_the_stream(serve: Serve) -> None:
    """A full queue for all is RESOURCE_EXHAUSTED before any event, so that the caller can try again."""
    async with serve() as running:
        running.worker().capacity = 0
        code, _ = await refusal_of_stream(running.translation.StreamTranslate(request_of(CAT, HELLO)))

    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_an_unknown_model_refuses_the_stream(serve: Serve) -> None:
    """What concerns all texts ends the stream with a status."""
    async with serve() as running:
        code, details = await refusal_of_stream(running.translation.StreamTranslate(request_of(CAT, model_name="no")))

    assert code is grpc.StatusCode.NOT_FOUND
    assert "echo" in details


async def test_a_fault_in_the_middle_ends_its_own_text(serve: Serve) -> None:
    """A text that fails after its first tokens ends with a failure; its neighbour with its translation."""
    async with serve() as running:
        codec = running.catalog.find("echo").text
        assert codec is not None
        length = len(codec.encode(HELLO, truncate=False, field="text").token_ids)
        running.worker().fail = failing_for(length, EngineError("the model gave NaN for this input"))
        events = [event async for event in running.translation.StreamTranslate(request_of(CAT, HELLO))]

    assert kinds_of(events, 0)[-1] == "translation"
    assert kinds_of(events, 1) == ["failure"]


async def test_a_disconnect_in_mid_stream_takes_the_work_back(serve: Serve) -> None:
    """A caller that goes away frees its rows; a neighbour's stream is unharmed."""
    async with serve() as running:
        worker = running.worker()
        worker.pause_after = 1
        neighbour = aiter(running.translation.StreamTranslate(request_of(CAT)))
        await anext(neighbour)
        async with grpc.aio.insecure_channel(running.address) as own:
            leaving = translation_pb2_grpc.TranslationServiceStub(own).StreamTranslate(request_of(CAT, CAT))
            await worker.until_inside(3)
            leaving.cancel()
        await worker.until_inside(1)
        worker.pause_after = None
        worker.steps.set()
        events = [event async for event in neighbour]

    assert worker.left_early == 2
    assert events[-1].translation.text == CAT


async def test_a_deadline_ends_a_stream(serve: Serve) -> None:
    """A stream that outlives its deadline ends with DEADLINE_EXCEEDED and leaves the worker."""
    async with serve() as running:
        worker = running.worker()
        worker.steps.clear()
        code, _ = await refusal_of_stream(running.translation.StreamTranslate(request_of(CAT), timeout=0.2))
        await worker.until_inside(0)

    assert code is grpc.StatusCode.DEADLINE_EXCEEDED


async def refusal_of_stream(call: grpc.aio.UnaryStreamCall) -> tuple[grpc.StatusCode, str]:
    """Return the status that a stream ends with before any event."""
    return await refusal(call.read())


async def numbers(*items: int | RegardError) -> AsyncGenerator[int, None]:
    """Yield the numbers and raise the errors."""
    for item in items:
        await asyncio.sleep(0)
        if isinstance(item, RegardError):
            raise item
        yield item


async def test_merged_errors_are_given_once_it_is_known_that_not_all_share_them() -> None:
    """An error that all may share is given with the first event that says that they don't."""
    full = QueueFullError("full")

    events = [event async for event in merge([numbers(full), numbers(1, 2)])]

    assert events == [(0, full), (1, 1), (1, 2)]


async def test_merged_errors_of_several_codes_are_all_given() -> None:
    """Streams that fail for different reasons each say theirs."""
    full, broken, bad = QueueFullError("full"), EngineError("broken"), InvalidInputError("bad")

    events = [event async for event in merge([numbers(full), numbers(broken), numbers(bad)])]

    assert sorted(index for index, _ in events) == [0, 1, 2]


async def test_a_merge_that_all_fail_alike_raises() -> None:
    """Streams that fail for one reason raise it once."""
    with pytest.raises(QueueFullError):
        async for event in merge([numbers(QueueFullError("full")), numbers(QueueFullError("full"))]):
            pytest.fail(f"{event} came before the error")


async def test_closing_a_merge_closes_its_streams() -> None:
    """Streams end where they stand when nobody reads on."""
    closed: list[int] = []

    async def endless(index: int) -> AsyncGenerator[int, None]:
        try:
            while True:
                await asyncio.sleep(0)
                yield index
        finally:
            closed.append(index)

    merged = merge([endless(0), endless(1)])
    await anext(merged)
    await merged.aclose()

    assert sorted(closed) == [0, 1]

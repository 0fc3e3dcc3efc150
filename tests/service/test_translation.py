"""Translate, as a caller sees it."""

from __future__ import annotations

import asyncio
import math
import re

import grpc
import numpy as np
import pytest

from regard.errors import EngineError, PackageError, QueueFullError, UnavailableError
from regard.v1 import attention_pb2, generation_pb2, model_pb2, translation_pb2

from .conftest import Serve
from .scripted_worker import failing_for

HELLO = "Hello, world!"
CAT = "The cat sat on the mat."
LONG = "The cat sat on the mat. " * 12


def request_of(*texts: str, **fields: object) -> translation_pb2.TranslateRequest:
    """Return a request for the only translator."""
    return translation_pb2.TranslateRequest(texts=texts, **fields)


async def refusal(call: grpc.aio.UnaryUnaryCall) -> tuple[grpc.StatusCode, str]:
    """Return the status that a call ends with, which must not be OK."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


async def test_every_text_has_a_result_in_order(serve: Serve) -> None:
    """Several texts come back in the order in which they were sent, with the model that answered."""
    async with serve() as running:
        response = await running.translation.Translate(request_of(CAT, HELLO))

    assert (response.model.name, response.model.version) == ("echo", "1")
    assert [result.translation.text for result in response.results] == [CAT, HELLO]
    translation = response.results[0].translation
    assert translation.finish_reason == generation_pb2.FINISH_REASON_END_OF_SENTENCE
    assert translation.target_tokens == translation.source_tokens > 1
    assert math.isclose(translation.log_probability, -0.5 * translation.target_tokens)
    assert translation.timing.decode_s == 0.003
    assert not translation.truncated
    assert not translation.HasField("attention")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        (" \t\n ", "white space"),
        ("a\0b", "NUL"),
        (LONG, "at most 32"),
        ("x" * 100_000, "100000 characters"),
    ],
    ids=["empty", "blank", "NUL", "too long", "far too long"],
)
async def test_a_bad_text_fails_its_own_result_only(serve: Serve, text: str, says: str) -> None:
    """A text that the model can't take gives a failure that names it; its neighbours are translated."""
    async with serve() as running:
        response = await running.translation.Translate(request_of(HELLO, text, CAT))

    first, second, third = response.results
    assert (first.translation.text, third.translation.text) == (HELLO, CAT)
    assert second.failure.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert second.failure.field == "texts[1]"
    assert says in second.failure.message


async def test_a_bad_text_alone_is_a_failure_too(serve: Serve) -> None:
    """A request of one bad text is answered, not refused: callers treat one text as several."""
    async with serve() as running:
        response = await running.translation.Translate(request_of(""))

    assert [result.WhichOneof("outcome") for result in response.results] == ["failure"]


async def test_a_long_text_is_cut_if_the_request_says_so(serve: Serve) -> None:
    """With `truncate`, a text is cut to the model's positions and the answer says that it was."""
    async with serve() as running:
        response = await running.translation.Translate(request_of(LONG, CAT, truncate=True))

    long, short = (result.translation for result in response.results)
    assert (long.source_tokens, long.truncated) == (32, True)
    assert LONG.startswith(long.text)
    assert not short.truncated


@pytest.mark.parametrize("count", [0, 4])
async def test_a_request_has_some_inputs_but_not_too_many(serve: Serve, count: int) -> None:
    """No text at all, or more than the server takes, is refused with the limit."""
    async with serve(max_inputs=3) as running:
        code, details = await refusal(running.translation.Translate(request_of(*[HELLO] * count)))

    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert f"texts: {count} given; a request takes from 1 to 3" in details


@pytest.mark.parametrize(
    ("fields", "code", "says"),
    [
        ({"model_name": "nobody"}, grpc.StatusCode.NOT_FOUND, "echo, sorter"),
        ({"model_name": "x" * 100_000}, grpc.StatusCode.NOT_FOUND, "echo, sorter"),
        ({"model_name": "echo", "model_version": "7"}, grpc.StatusCode.NOT_FOUND, "it has 1"),
        ({"model_name": "sorter"}, grpc.StatusCode.INVALID_ARGUMENT, "call ClassificationService"),
        ({"generation": {"max_new_tokens": 33}}, grpc.StatusCode.INVALID_ARGUMENT, "from 1 to 32"),
        ({"attention": {"kinds": [99]}}, grpc.StatusCode.INVALID_ARGUMENT, "attention.kinds[0]"),
        ({"attention": {"kinds": [0]}}, grpc.StatusCode.INVALID_ARGUMENT, "attention.kinds[0]"),
        ({"attention": {"reduction": 9}}, grpc.StatusCode.INVALID_ARGUMENT, "attention.reduction"),
        ({"attention": {"layers": [2]}}, grpc.StatusCode.INVALID_ARGUMENT, "no layer 2"),
        ({"attention": {"layers": [2**32 - 1]}}, grpc.StatusCode.INVALID_ARGUMENT, "attention.layers"),
        ({"attention": {"heads": [4]}}, grpc.StatusCode.INVALID_ARGUMENT, "no head 4"),
    ],
)
async def test_what_concerns_all_texts_refuses_the_request(
    serve: Serve, fields: dict[str, object], code: grpc.StatusCode, says: str
) -> None:
    """An unknown model, another task's model or options that can't be met end the request, and say what there is."""
    async with serve() as running:
        found = await refusal(running.translation.Translate(request_of(HELLO, **fields)))

    assert found[0] is code
    assert says in found[1]


async def test_the_name_may_be_left_out_where_one_model_does_the_task(serve: Serve) -> None:
    """A classifier beside it does not make the only translator ambiguous."""
    async with serve() as running:
        response = await running.translation.Translate(request_of(HELLO, model_name=""))

    assert response.model.name == "echo"


async def test_generation_ends_at_the_length_asked_for(serve: Serve) -> None:
    """`max_new_tokens` reaches the engine, and the answer says why it ended."""
    async with serve() as running:
        response = await running.translation.Translate(request_of(CAT, generation={"max_new_tokens": 3}))

    translation = response.results[0].translation
    assert translation.target_tokens == 3
    assert translation.finish_reason == generation_pb2.FINISH_REASON_LENGTH


async def test_text_that_is_not_utf8_is_the_callers_fault(serve: Serve) -> None:
    """A lone surrogate on the wire is INVALID_ARGUMENT, and the server goes on."""
    surrogate = b"\x1a\x03\xed\xa0\x80"  # field 3, three bytes: U+D800 as some encoders write it
    async with serve() as running:
        raw = running.channel.unary_unary("/regard.v1.TranslationService/Translate")
        code, details = await refusal(raw(surrogate))
        response = await running.translation.Translate(request_of(HELLO))

    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "UTF-8" in details
    assert response.results[0].translation.text == HELLO


async def test_a_message_over_the_limit_is_refused_and_the_server_lives(serve: Serve) -> None:
    """A message over `max_message_bytes` ends with gRPC's own code; the next request is served."""
    async with serve(max_message_bytes=4096) as running:
        code, _ = await refusal(running.translation.Translate(request_of("x" * 5000)))
        response = await running.translation.Translate(request_of(HELLO))

    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert response.results[0].translation.text == HELLO


async def test_attention_is_labelled_and_its_rows_sum_to_one(serve: Serve) -> None:
    """Cross attention comes for every layer, with the axes that its shape says and where it comes from."""
    async with serve() as running:
        response = await running.translation.Translate(request_of(CAT, attention={}))
        package = running.catalog.find("echo").package

    translation = response.results[0].translation
    attention = translation.attention
    assert attention.package_sha256 == package.sha256
    assert attention.precision == "fp32"
    assert [(one.layer, list(one.heads)) for one in attention.maps] == [(0, [0, 1, 2, 3]), (1, [0, 1])]
    axes = {axis.axis: axis.segments for axis in attention.axes}
    for one in attention.maps:
        assert one.kind == attention_pb2.ATTENTION_KIND_CROSS
        shape = (len(one.heads), len(axes[one.query_axis]), len(axes[one.key_axis]))
        assert tuple(one.shape) == shape == (len(one.heads), translation.target_tokens, translation.source_tokens)
        weights = np.frombuffer(one.weights, "<f4").reshape(shape)
        np.testing.assert_allclose(weights.sum(axis=2), 1.0, atol=1e-5)
    source = axes[attention_pb2.ATTENTION_AXIS_SOURCE]
    assert CAT[source[0].start : source[0].end].startswith("T")
    assert source[-1].special


async def test_attention_by_words_and_reduced_over_heads(serve: Serve) -> None:
    """Options reach the maps: words on both axes, one map of means, only what was chosen."""
    options = attention_pb2.AttentionOptions(
        kinds=[attention_pb2.ATTENTION_KIND_SELF],
        stacks=[attention_pb2.ATTENTION_STACK_ENCODER],
        layers=[1],
        heads=[0, 3],
        reduction=attention_pb2.ATTENTION_REDUCTION_MEAN,
        granularity=attention_pb2.ATTENTION_GRANULARITY_WORD,
    )
    async with serve() as running:
        response = await running.translation.Translate(request_of(CAT, attention=options))
        asked = running.worker().seen[0].taps

    attention = response.results[0].translation.attention
    assert asked == {"encoder.self.1"}
    assert [segment.text for segment in attention.axes[0].segments][:3] == ["The", "cat", "sat"]
    assert [(one.layer, list(one.heads), one.shape[0]) for one in attention.maps] == [(1, [0, 3], 1)]


async def test_an_output_has_a_budget_of_weights_while_it_is_made(serve: Serve) -> None:
    """It is what may be read of all its sequences, and of the inputs beside it; who asks for nothing has none."""
    several = {"num_beams": 3, "num_return_sequences": 2}
    async with serve(max_attention_bytes=1 << 20) as running:
        await running.translation.Translate(request_of(CAT, CAT, attention={}, generation=several))
        await running.translation.Translate(request_of(CAT))
        asking, _, plain = running.worker().seen

    assert asking.tap_budget == (asking.taps, 16 << 20, ("attention",))
    assert plain.tap_budget is None


async def test_more_likeliest_tokens_than_a_response_can_list_are_refused(serve: Serve) -> None:
    """By what they may come to, before anything is generated; a stream answers each text by itself."""
    generation = generation_pb2.GenerationOptions(top_logprobs=20, max_new_tokens=32)
    async with serve(max_message_bytes=20_000) as running:
        code, details = await refusal(running.translation.Translate(request_of(CAT, CAT, generation=generation)))
        assert not running.worker().seen
        await running.translation.Translate(request_of(CAT, generation=generation))
        request = translation_pb2.StreamTranslateRequest(texts=[CAT, CAT], generation=generation)
        events = [event async for event in running.translation.StreamTranslate(request)]

    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "generation.top_logprobs is 20, and of 64 tokens may come to 30.0 KiB" in details
    assert "a response may have 19.5 KiB" in details
    assert sum(event.HasField("translation") for event in events) == 2


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("num_beams", {}),
        ("num_return_sequences", {"do_sample": True}),
        ("num_return_sequences", {"alternatives_position": 0}),
    ],
)
async def test_more_sequences_than_there_are_rows_refuse_the_request(
    serve: Serve, name: str, others: dict[str, object]
) -> None:
    """By the field and the limit, before a text is read; as many as there are rows are taken."""
    async with serve(engine={"max_rows": 4}) as running:
        generation = {name: 5, **others}
        code, details = await refusal(running.translation.Translate(request_of(HELLO, CAT, generation=generation)))
        assert not running.worker().seen
        await running.translation.Translate(request_of(CAT, generation=generation | {name: 4}))
        (taken,) = running.worker().seen

    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert details == f"generation.{name} is 5; this server decodes at most 4 side by side (engine.max_rows)"
    assert taken.options.width == 4


async def test_attention_over_the_budget_fails_with_its_size(serve: Serve) -> None:
    """An input whose attention would be over its share of the response fails, and the message has both figures."""
    async with serve(max_attention_bytes=4096) as running:
        response = await running.translation.Translate(request_of(CAT, "cat", attention={}))

    over, within = response.results
    assert over.failure.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert "may have 2.0 KiB" in over.failure.message
    assert "ask for encoding uint8 (" in over.failure.message
    assert within.HasField("translation")


async def test_a_request_has_a_budget_of_its_own(serve: Serve) -> None:
    """`max_bytes` counts what one input's maps are sent as; what is told to fit is sent within it, never more."""
    async with serve(max_attention_bytes=4096) as running:

        async def translated(**attention: int) -> translation_pb2.TranslationResult:
            response = await running.translation.Translate(request_of(CAT, attention=attention))
            return response.results[0]

        whole = sum(len(one.weights) for one in (await translated()).translation.attention.maps)
        assert (await translated(max_bytes=whole)).HasField("translation")
        refused = (await translated(max_bytes=whole - 1)).failure
        found = re.search(r"top_k (\d+) \(([\d.]+) KiB\)", refused.message)
        assert found is not None
        fitting = (await translated(max_bytes=whole - 1, top_k=int(found[1]))).translation.attention.maps
        beyond = (await translated(max_bytes=1 << 40, encoding=attention_pb2.ATTENTION_ENCODING_FLOAT32)).translation

    assert refused.field == "texts[0]"
    sent = sum(len(one.weights) + len(one.key_indices) for one in fitting)
    assert sent < whole
    assert f"{sent / 1024:.1f}" == found[2]
    assert beyond.HasField("attention")


async def test_more_than_the_server_allows_can_not_be_asked_for(serve: Serve) -> None:
    """A budget above the server's is the server's, and the refusal says so with the server's figure."""
    async with serve(max_attention_bytes=1024) as running:
        request = request_of(CAT, attention={"max_bytes": 1 << 40})
        response = await running.translation.Translate(request)

    assert "may have 1.0 KiB" in response.results[0].failure.message


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"encoding": 9}, "attention.encoding: 9 is not one of"),
        ({"granularity": 3}, "attention.granularity: model echo looks at no image"),
        ({"reduction": 5, "layers": [2]}, "attention.layers: there is no layer 2"),
    ],
)
async def test_what_can_not_be_met_is_refused_by_name(serve: Serve, fields: dict[str, object], says: str) -> None:
    """An encoding that is none, patches of a text, and a rollout of a layer that isn't there."""
    async with serve() as running:
        code, details = await refusal(running.translation.Translate(request_of(CAT, attention=fields)))

    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert says in details


async def test_attention_that_is_sure_to_be_over_the_budget_never_runs(serve: Serve) -> None:
    """What the source alone puts over the budget is refused before the model works for it."""
    async with serve(max_attention_bytes=16) as running:
        response = await running.translation.Translate(request_of(CAT, attention={}))
        seen = running.worker().seen

    assert "at least" in response.results[0].failure.message
    assert seen == []


async def test_the_inputs_of_a_stream_share_what_is_read(serve: Serve) -> None:
    """Each is sent with the whole budget, but all of their layers and heads are there at the same time."""
    options = attention_pb2.AttentionOptions(reduction=attention_pb2.ATTENTION_REDUCTION_ROLLOUT)
    refusals = []
    async with serve(max_attention_bytes=1024) as running:
        for inputs in (1, 16):
            request = translation_pb2.StreamTranslateRequest(texts=[CAT] * inputs, attention=options)
            events = [event async for event in running.translation.StreamTranslate(request)]
            refusals.append([event.failure.message for event in events if event.HasField("failure")])

    assert refusals[0] == []
    assert len(refusals[1]) == 16
    assert all("the server reads at most 2.0 KiB for it" in message for message in refusals[1])


async def test_a_full_queue_fails_the_inputs_that_find_no_place(serve: Serve) -> None:
    """Where some inputs find a place, the others fail with RESOURCE_EXHAUSTED beside them."""
    async with serve() as running:
        worker = running.worker()
        worker.capacity = 2
        worker.steps.clear()
        call = asyncio.ensure_future(running.translation.Translate(request_of(CAT, HELLO, CAT)))
        await worker.until(lambda: worker.refused == 1)
        worker.steps.set()
        response = await call

    outcomes = [result.WhichOneof("outcome") for result in response.results]
    codes = [result.failure.code for result in response.results if result.HasField("failure")]
    assert sorted(outcomes) == ["failure", "translation", "translation"]
    assert codes == [grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]]


async def test_where_there_is_no_room_nothing_is_read(serve: Serve) -> None:
    """A request is refused before its options and its texts are looked at; each of its texts counts as refused."""
    async with serve() as running:
        worker = running.worker()
        worker.capacity = 0
        nonsense = generation_pb2.GenerationOptions(num_beams=4, temperature=-1)
        code, _ = await refusal(running.translation.Translate(request_of(CAT, HELLO, generation=nonsense)))
        labels = {"model": "echo", "version": "1", "task": "translation", "code": code.name}
        counted = [running.metric(f"regard_{what}_total", **labels) for what in ("requests", "inputs")]

    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert not worker.foreseen
    assert counted == [1, 2]


@pytest.mark.parametrize(
    "error", [QueueFullError("full"), UnavailableError("draining")], ids=lambda error: error.code_name
)
async def test_an_error_that_all_inputs_share_is_the_requests(
    serve: Serve, error: QueueFullError | UnavailableError
) -> None:
    """Where every input fails for one reason that is not its own, the request ends with that code."""
    async with serve() as running:
        running.worker().fail = lambda request: error
        code, details = await refusal(running.translation.Translate(request_of(CAT, HELLO)))

    assert (code.name, details) == (error.code_name, error.message)


async def test_a_request_whose_deadline_passes_is_given_up(serve: Serve) -> None:
    """The caller gets DEADLINE_EXCEEDED, and the work is taken back from the worker."""
    async with serve() as running:
        worker = running.worker()
        worker.steps.clear()
        code, _ = await refusal(running.translation.Translate(request_of(CAT), timeout=0.2))
        await worker.until_inside(0)
        deadline = worker.seen[0].deadline
        left_early = worker.left_early

    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert deadline is not None
    assert left_early == 1


async def test_without_a_deadline_the_engine_is_given_none(serve: Serve) -> None:
    """A caller that sets no deadline waits as long as it takes."""
    async with serve() as running:
        await running.translation.Translate(request_of(HELLO))
        assert running.worker().seen[0].deadline is None


async def test_a_cancelled_request_leaves_the_worker(serve: Serve) -> None:
    """Cancelling takes every input of the request back, and harms no other."""
    async with serve() as running:
        worker = running.worker()
        worker.steps.clear()
        call = running.translation.Translate(request_of(CAT, HELLO))
        other = asyncio.ensure_future(running.translation.Translate(request_of(CAT)))
        await worker.until_inside(3)
        call.cancel()
        await worker.until_inside(1)
        worker.steps.set()
        response = await other

    assert response.results[0].translation.text == CAT
    assert worker.left_early == 2


async def test_an_engine_fault_fails_its_own_input(serve: Serve) -> None:
    """A row that turns NaN fails with INTERNAL; the other inputs of the request are served."""
    async with serve() as running:
        worker = running.worker()
        codec = running.catalog.find("echo").text
        assert codec is not None
        length = len(codec.encode(HELLO, truncate=False, field="text").token_ids)
        worker.fail = failing_for(length, EngineError("the model gave NaN for this input"))
        response = await running.translation.Translate(request_of(CAT, HELLO))

    good, bad = response.results
    assert good.translation.text == CAT
    assert bad.failure.code == grpc.StatusCode.INTERNAL.value[0]
    assert "NaN" in bad.failure.message


@pytest.mark.parametrize("error", [ZeroDivisionError, PackageError], ids=["a bug", "a graph that can't be loaded"])
async def test_a_fault_of_the_server_shows_the_caller_an_id_and_the_log_the_rest(
    error: type[Exception], serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    """The caller, who can't mend it, hears nothing of the server; the id leads to it in the log."""
    async with serve() as running:
        running.worker().fail = lambda request: error("/srv/secret/path.py broke")
        code, details = await refusal(running.translation.Translate(request_of(HELLO)))

    assert code is grpc.StatusCode.INTERNAL
    assert "secret" not in details
    assert "Traceback" not in details
    incident = details.rpartition(" ")[2].rstrip(")")
    logged = capsys.readouterr().out
    assert logged.count(incident) == 1
    assert "secret/path.py" in logged


async def test_models_are_listed_with_all_that_can_be_asked_of_them(serve: Serve) -> None:
    """ListModels tells names, limits, taps and labels, in order."""
    async with serve() as running:
        listed = await running.models.ListModels(model_pb2.ListModelsRequest())

    echo, sorter = listed.models
    assert (echo.name, echo.version, echo.max_source_tokens, echo.max_target_tokens) == ("echo", "1", 32, 32)
    assert len(echo.taps) == 7
    assert echo.ready
    assert list(sorter.labels) == ["greeting", "farewell", "weather", "other"]
    assert sorter.max_target_tokens == 0


async def test_64_requests_at_once_are_answered_as_if_one_at_a_time(serve: Serve) -> None:
    """Answers never go to another's request."""
    texts = [f"{'cat ' * (1 + index % 7)}{'mat ' * (index % 5)}sat".strip() for index in range(64)]
    async with serve() as running:
        responses = await asyncio.gather(*(running.translation.Translate(request_of(text)) for text in texts))

    assert [response.results[0].translation.text for response in responses] == texts

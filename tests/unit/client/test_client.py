from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
import threading
from contextlib import closing
from typing import get_type_hints

import grpc
import numpy as np
import pytest

from regard.client import (
    AsyncClient,
    AttentionOptions,
    Ban,
    Bias,
    Client,
    Failure,
    InvalidTextError,
    Places,
    RequestFailed,
    ServerUnreachable,
    TokenDelta,
    Translation,
)
from regard.errors import InvalidInputError, RegardError
from regard.v1 import generation_pb2


def test_translation_mirrors_the_message(server):
    """A translation comes back with every field of its message."""
    with Client(server.target) as client:
        answer = client.translate("they grow oranges")
    assert answer.text == "THEY GROW ORANGES"
    assert answer.finish_reason == "end_of_sentence"
    assert (answer.source_tokens, answer.target_tokens, answer.log_probability) == (4, 4, -1.5)
    assert (answer.truncated, answer.attention) == (False, None)
    assert (answer.timing.queue_s, answer.timing.encode_s, answer.timing.decode_s) == (0.25, 0.5, 1)
    assert (answer.model.name, answer.model.version) == ("shout", "1")


def test_options_travel(server):
    """Every option of a call stands in the request."""
    options = AttentionOptions(
        kinds=["cross"], stacks=["decoder"], layers=[1], heads=[0, 2], reduction="max", granularity="word"
    )
    with Client(server.target) as client:
        client.translate("hi", model="m", version="2", max_new_tokens=9, attention=options, truncate=True)
        client.classify("hi", model="c", top_k=1)
    translate, classify = server.requests
    assert (translate.model_name, translate.model_version, translate.truncate) == ("m", "2", True)
    assert translate.generation.max_new_tokens == 9
    asked = translate.attention
    assert (asked.kinds, asked.stacks, asked.layers, asked.heads) == ([2], [2], [1], [0, 2])
    assert (asked.reduction, asked.granularity) == (3, 2)
    assert (classify.model_name, classify.top_k, classify.HasField("attention")) == ("c", 1, False)


def test_a_search_travels(server):
    """Options of a search stand in the request under their names; what is None or absent isn't there."""
    search = {
        "num_beams": 4,
        "early_stopping": True,
        "length_penalty": 0.0,
        "bad_words_ids": [[1, 2], [3]],
        "stop_strings": ["."],
        "token_logprobs": True,
    }
    with Client(server.target) as client:
        client.translate("hi", **search, seed=None)
    sent = {field.name: value for field, value in server.requests[0].generation.ListFields()}
    assert [list(word.token_ids) for word in sent.pop("bad_words_ids")] == [[1, 2], [3]]
    assert sent.pop("early_stopping") == generation_pb2.EARLY_STOPPING_TRUE
    assert sent == {name: search[name] for name in sent}
    assert sent.keys() == {"num_beams", "length_penalty", "stop_strings", "token_logprobs"}


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("max_new_tokens", 0, "must be at least 1, not 0"),
        ("num_return_sequences", -1, "must be at least 1, not -1"),
        ("num_beams", -1, "can't be -1"),
        ("num_beams", 2.5, "can't be 2.5"),
        ("early_stopping", "soon", "can't be 'soon'"),
        ("stop_strings", "no", "can't be 'no'"),
        ("temperature", "hot", "can't be 'hot'"),
    ],
)
def test_an_option_that_no_message_can_hold_is_refused_by_name(server, option, value, message):
    """Nothing is sent, and the error names the option."""
    with Client(server.target) as client, pytest.raises(InvalidInputError, match=message) as refused:
        client.translate("hi", **{option: value})
    assert refused.value.field == f"generation.{option}"
    assert server.requests == []


@pytest.mark.parametrize(
    ("method", "option", "message"),
    [
        ("translate", {"num_beam": 4}, "there is no option num_beam; did you mean num_beams?"),
        ("translate", {"timeout": -1}, "there is no option timeout"),
        ("classify", {"attentoin": AttentionOptions()}, "there is no option attentoin; did you mean attention?"),
        ("classify", {"num_beams": 4}, "there is no option num_beams"),
    ],
)
def test_an_unknown_option_is_refused_and_the_one_like_it_named(server, method, option, message):
    """Nothing is sent for an option that the task lacks, and the error says which one could be meant."""
    with Client(server.target) as client, pytest.raises(InvalidInputError) as refused:
        getattr(client, method)("hi", **option)
    assert (refused.value.message, refused.value.field) == (message, next(iter(option)))
    assert server.requests == []


def _asking(client_class: type) -> list[tuple[str, list[object]]]:
    """Return every method that takes options, with inputs that it takes."""
    asking = []
    for name, method in inspect.getmembers(client_class, inspect.isfunction):
        *given, last = inspect.signature(method).parameters.values()
        if last.kind is inspect.Parameter.VAR_KEYWORD:
            one = b"hi" if "caption" in name or "transcribe" in name else "hi"
            several = [("hi", "ho")] if "score" in name or "answer" in name else [one]
            if name == "compare":
                asking.append((name, [[b"hi"], ["hi"]]))
            elif name.endswith(("_many", "_each")):
                asking.append((name, [several]))
            else:
                asking.append((name, [one] * (len(given) - 1)))
    return asking


@pytest.mark.parametrize(("method", "given"), _asking(Client))
def test_every_method_refuses_an_unknown_option(server, method, given):
    """One, many, each or a stream: no method of a client passes over an option that it doesn't know."""
    with Client(server.target) as client, pytest.raises(InvalidInputError, match="there is no option modle"):
        list(getattr(client, method)(*given, modle="m"))
    assert server.requests == []


@pytest.mark.parametrize(("method", "given"), _asking(AsyncClient))
async def test_every_method_of_the_async_client_refuses_an_unknown_option(server, method, given):
    """What holds of the client for threads holds of that for asyncio."""
    async with AsyncClient(server.target) as client:
        with pytest.raises(InvalidInputError, match="there is no option modle; did you mean model"):
            asked = getattr(client, method)(*given, modle="m")
            [event async for event in asked] if inspect.isasyncgen(asked) else await asked
    assert server.requests == []


@pytest.mark.parametrize(("method", "given"), _asking(Client))
def test_no_option_may_be_of_any_type(server, method, given):
    """Whatever a method takes, what is of no type that it declares is refused by its name."""
    kind = get_type_hints(getattr(Client, method), include_extras=True)["options"].__args__[0]
    with Client(server.target) as client:
        for name in kind.__annotations__:
            with pytest.raises(InvalidInputError, match=name) as refused:
                list(getattr(client, method)(*given, **{name: object()}))
            assert refused.value.field in (name, f"generation.{name}")
    assert server.requests == []


@pytest.mark.parametrize(
    ("options", "message", "field"),
    [
        ({"model": 5}, "model must be a string, not int", "model"),
        ({"attention": True}, "attention must be of class AttentionOptions, not bool", "attention"),
        ({"attention": AttentionOptions(layers=5)}, "attention.layers must be a list, not int", "attention.layers"),
        ({"attention": AttentionOptions(top_k="5")}, "must be a whole number, not str", "attention.top_k"),
        (
            {"interventions": ["x"]},
            r"interventions\[0\] must be of class KnockOut, LocalWindow, Ban or Bias, not str",
            "interventions[0]",
        ),
        ({"interventions": [Ban(keys=[(0, 4)])]}, "must be of class Places, not list", "interventions[0].keys"),
        ({"interventions": [Ban(keys=Places(spans=[("a", "b")]))]}, "number", "interventions[0].keys.spans[0][0]"),
        ({"glossary": {}}, "glossary must be a list, not dict", "glossary"),
        ({"glossary": ["car"]}, r"glossary\[0\] must be a list, not str", "glossary[0]"),
        ({"glossary": [("a", "b", "c")]}, r"glossary\[0\] must be 2 values, not 3", "glossary[0]"),
        ({"glossary": [("a", 1)]}, r"glossary\[0\]\[1\] must be a string, not int", "glossary[0][1]"),
        ({"truncate": "no"}, "truncate must be True or False, not str", "truncate"),
        ({"priority": 2}, "priority must be a string, not int", "priority"),
        ({"version": "\ud800"}, "version holds a lone surrogate", "version"),
    ],
)
def test_an_option_of_another_type_is_refused_by_name(server, options, message, field):
    """Nothing is sent, and the error names the option, or what of it is at fault, and what it must be."""
    with Client(server.target) as client, pytest.raises(InvalidInputError, match=message) as refused:
        client.translate("hi", **options)
    assert (refused.value.field, server.requests) == (field, [])


def test_what_counts_and_what_is_none_are_taken(server):
    """NumPy's numbers, ranges and iterators are; None is no option at all."""
    attention = AttentionOptions(layers=np.arange(2), heads=iter([1]), top_k=np.int64(3), prompt=np.bool_(True))
    bias = Bias(value=np.float32(0.5), keys=Places(spans=[[0, np.int32(2)]], positions=range(2)))
    with Client(server.target) as client:
        client.translate("hi", attention=attention, interventions=(one for one in [bias]), glossary=[["a", "b"]])
        client.translate("hi", model=None, attention=None, interventions=None, glossary=None, markup=None)
    asked, plain = server.requests
    assert (list(asked.attention.layers), list(asked.attention.heads), asked.attention.top_k) == ([0, 1], [1], 3)
    assert asked.interventions[0].bias.keys.spans[0].end == 2
    assert asked.glossary[0].target == "b"
    assert plain == type(plain)(texts=["hi"], markup=1, generation={})


def test_sequences_and_tokens_come_back(server):
    """The further sequences stand in their order, and tokens with what could have come instead."""
    with Client(server.target) as client:
        answer = client.translate("hi", num_return_sequences=3, token_logprobs=True)
    assert [(one.text, one.score) for one in answer.further_sequences] == [("HI!", -2.5), ("HI!!", -2.5)]
    (token,) = answer.tokens
    assert (token.token_id, token.token, token.log_probability) == (7, "_HI", -0.25)
    assert [(one.token_id, one.token, one.log_probability) for one in token.top_logprobs] == [(8, "_HO", -1.75)]


def test_attention_is_an_array_with_labelled_axes(server):
    """A map's weights are float32 [heads, queries, keys], labelled by the words of both axes."""
    with Client(server.target) as client:
        attention = client.translate("they grow", attention=AttentionOptions()).attention
    first = attention.maps[0]
    assert (first.kind, first.stack, first.layer, first.heads) == ("cross", "decoder", 0, (0, 1, 2))
    assert first.weights.shape == (1, 3, 3)
    assert first.weights.dtype == np.float32
    assert [key.text for key in first.keys] == ["they", "grow", "</s>"]
    assert [query.text for query in first.queries] == ["THEY", "GROW", "</s>"]
    assert (first.keys[1].start, first.keys[1].end, first.keys[1].token_id) == (5, 9, None)
    assert (first.keys[2].special, first.keys[2].token_id) == (True, 1)
    np.testing.assert_allclose(first.weights.sum(axis=-1), 1, atol=1e-6)


def test_one_failing_input_raises(server):
    """The method of one text raises its failure with code, field and message."""
    with Client(server.target) as client, pytest.raises(RequestFailed) as caught:
        client.translate("bad")
    assert (caught.value.code, caught.value.code_name, caught.value.field) == (3, "INVALID_ARGUMENT", "texts[0]")
    assert caught.value.message == "texts[0] is bad; send a better one"
    assert isinstance(caught.value, RegardError)


def test_many_inputs_are_split_and_answered_in_order(server):
    """Many texts travel in requests of the given size, and failures bear the caller's own indices."""
    texts = [f"text {number}" for number in range(7)]
    texts[5] = "bad"
    with Client(server.target, inputs_per_request=3) as client:
        answers = client.translate_many(texts)
    assert sorted(len(request.texts) for request in server.requests) == [1, 3, 3]
    failure = Failure(code=3, message="texts[5] is bad; send a better one", field="texts[5]")
    assert answers[5] == failure
    assert [answer.text for answer in answers if isinstance(answer, Translation)] == [
        text.upper() for text in texts if text != "bad"
    ]


def test_several_requests_are_in_flight_and_no_more(server):
    """As many requests run at a time as are allowed."""
    server.held.clear()
    with Client(server.target, inputs_per_request=1, requests_in_flight=3) as client:
        done: list[int] = []
        asking = threading.Thread(target=lambda: done.append(len(client.translate_many(["a"] * 8))))
        asking.start()
        server.wait_running(3)
        server.held.set()
        asking.join(10)
    assert done == [8]
    assert server.most_running == 3


def test_texts_are_read_as_results_are_taken(server):
    """`translate_each` doesn't read its texts to the end before it yields the first result."""
    read: list[int] = []

    def texts():
        for number in range(100):
            read.append(number)
            yield "a"

    with (
        Client(server.target, inputs_per_request=2, requests_in_flight=2) as client,
        closing(client.translate_each(texts())) as answers,
    ):
        next(answers)
        assert len(read) == 6


def test_no_texts_no_requests(server):
    """Nothing asked is nothing sent."""
    with Client(server.target) as client:
        assert client.translate_many([]) == []
    assert server.requests == []


def test_unavailable_is_tried_again(server):
    """A call that ends with UNAVAILABLE is made again, without the caller noticing."""
    server.refusals = [grpc.StatusCode.UNAVAILABLE] * 2
    with Client(server.target) as client:
        assert client.translate("hi").text == "HI"
    assert len(server.requests) == 3


def test_refusal_is_not_tried_again(server):
    """Any other code is final, and keeps the server's words."""
    server.refusals = [grpc.StatusCode.NOT_FOUND]
    with Client(server.target) as client, pytest.raises(RequestFailed, match="refused with NOT_FOUND") as caught:
        client.translate_many(["hi"])
    assert caught.value.code_name == "NOT_FOUND"
    assert len(server.requests) == 1


def test_a_full_queue_fails_its_own_inputs_only(server):
    """A request that meets a full queue fails its inputs; the other requests are answered."""
    server.refusals = [grpc.StatusCode.RESOURCE_EXHAUSTED]
    with Client(server.target, inputs_per_request=2, requests_in_flight=1) as client:
        answers = client.translate_many(["a", "b", "c"])
    assert [type(answer) for answer in answers] == [Failure, Failure, Translation]
    assert answers[0].code_name == "RESOURCE_EXHAUSTED"


def test_nothing_there():
    """A server that isn't there is named, and is an error of its own."""
    with Client("localhost:1", timeout_s=30) as client, pytest.raises(ServerUnreachable) as caught:
        client.models()
    assert caught.value.message == "can't reach a server at localhost:1 (Connection refused)"


def test_deadline_in_words(server):
    """A deadline that passes is told in seconds."""
    server.held.clear()
    with Client(server.target, timeout_s=0.05) as client, pytest.raises(RequestFailed) as caught:
        client.translate("hi")
    assert (caught.value.code_name, caught.value.message) == ("DEADLINE_EXCEEDED", "no answer within 0.05 s")


@pytest.mark.parametrize("text", [None, 3, b"bytes"])
def test_not_text(server, text):
    """What is no string is refused by type and place, before anything is sent."""
    with (
        Client(server.target) as client,
        pytest.raises(InvalidTextError, match=r"texts\[1\] must be a string") as caught,
    ):
        client.translate_many(["fine", text])
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, InvalidInputError)
    assert server.requests == []


def test_lone_surrogate(server):
    """A lone surrogate is refused with its position, before anything is sent."""
    with Client(server.target) as client, pytest.raises(InvalidTextError, match=r"U\+D800\) at position 2") as caught:
        client.classify("ab\ud800")
    assert caught.value.field == "inputs[0]"
    assert server.requests == []


def test_one_string_is_not_many(server):
    """A string where many are expected is refused, not taken apart."""
    with Client(server.target) as client, pytest.raises(InvalidTextError, match="several inputs"):
        client.translate_many("hello")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_new_tokens": 0}, "generation.max_new_tokens must be at least 1"),
        ({"attention": AttentionOptions(layers=[-1])}, "attention.layers are counted from 0"),
        ({"attention": AttentionOptions(reduction="median")}, "attention.reduction has no value 'median'"),
    ],
)
def test_options_that_cannot_be_sent(server, options, words):
    """Options that no message can hold are refused by name."""
    with Client(server.target) as client, pytest.raises(InvalidInputError, match=words):
        client.translate("hi", **options)


def test_stream_gives_deltas_then_the_whole(server):
    """A stream yields each token's text and last the translation that they make."""
    with Client(server.target) as client:
        *deltas, final = client.stream_translate("hello")
    assert all(isinstance(delta, TokenDelta) for delta in deltas)
    assert "".join(delta.text for delta in deltas) == final.text == "HELLO"
    assert isinstance(final, Translation)
    assert (final.model.name, final.model.version) == ("shout", "1")


def test_stream_raises_its_failure(server):
    """A stream of a refused text raises."""
    with Client(server.target) as client, pytest.raises(RequestFailed, match="is bad"):
        list(client.stream_translate("bad"))


def test_leaving_a_stream_cancels_it(server):
    """Closing the iteration early ends the request on the server."""
    with Client(server.target) as client:
        with closing(client.stream_translate("endless")) as events:
            next(events)
        assert server.cancelled.wait(5)


def test_classification_mirrors_the_message(server):
    """A classification comes back with its classes in order."""
    with Client(server.target) as client:
        answer, failure = client.classify_many(["hello there", "bad"], top_k=2)
    assert [(one.label, one.index, one.probability) for one in answer.classes] == [
        ("greeting", 4, 0.75),
        ("goodbye", 2, 0.125),
    ]
    assert (answer.out_of_scope, answer.source_tokens) == (False, 7)
    assert failure.field == "inputs[1].text"


def test_models_with_their_taps(server):
    """The models of a server are listed with what attention they can give."""
    with Client(server.target) as client:
        (model,) = client.models()
    assert (model.name, model.version, model.task, model.ready) == ("shout", "1", "translation", True)
    assert (model.taps[0].kind, model.taps[0].stack, model.taps[0].heads) == ("cross", "decoder", 3)


async def test_async_client_answers_the_same(server):
    """The asyncio client gives what the other gives."""
    async with AsyncClient(server.target, inputs_per_request=2) as client:
        answers = await client.translate_many(["a", "bad", "c"])
        events = [event async for event in client.stream_translate("hi")]
        with pytest.raises(RequestFailed, match="is bad"):
            await client.translate("bad")
        assert (await client.classify("hello")).classes[0].label == "greeting"
        assert [model.name for model in await client.models()] == ["shout"]
    assert [answers[0].text, answers[1].field, answers[2].text] == ["A", "texts[1]", "C"]
    assert "".join(event.text for event in events[:-1]) == events[-1].text == "HI"


async def test_a_report_shows_what_has_attention(server, tmp_path):
    """Both clients write the same page of answers and their inputs, without those that failed."""
    texts, attention = ["they grow", "bad"], AttentionOptions(granularity="word")
    with Client(server.target) as client:
        client.report(tmp_path / "one.html", zip(texts, client.translate_many(texts, attention=attention), strict=True))
    async with AsyncClient(server.target) as client:
        answers = await client.translate_many(texts, attention=attention)
        await client.report(tmp_path / "other.html", zip(texts, answers, strict=True))
    page = (tmp_path / "one.html").read_text("utf-8")
    assert page.count('"task":"translation"') == 1
    assert (tmp_path / "other.html").read_text("utf-8") == page


async def test_async_client_tries_again(server):
    """The asyncio client retries UNAVAILABLE, too."""
    server.refusals = [grpc.StatusCode.UNAVAILABLE]
    async with AsyncClient(server.target) as client:
        assert (await client.translate("hi")).text == "HI"


async def test_async_stream_closed_early_is_cancelled(server):
    """Closing an asynchronous stream ends the request on the server."""
    async with AsyncClient(server.target) as client:
        events = client.stream_translate("endless")
        await anext(events)
        await events.aclose()
        assert await asyncio.to_thread(server.cancelled.wait, 5)


def test_the_client_is_light():
    """Importing the client imports neither a runtime nor the server."""
    code = (
        "import sys, regard.client;"
        "print([m for m in sys.modules if m.startswith(('onnxruntime', 'regard.engine', 'regard.rpc', 'torch'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_quality_and_glossary_are_read(server):
    """What the server tells of quality and terms is what the result holds, in words, too."""
    with Client(server.target) as client:
        answer = client.translate("they grow", quality=True, glossary=[("they", "THEY"), ("grow", "RAISE")])

    assert answer.quality is not None
    assert (answer.quality.score, answer.quality.warnings) == (0.5, ("under_translation",))
    assert str(answer.quality) == "0.50, under-translation; perhaps left out: grow"
    kept, missing = answer.glossary
    assert (kept.verdict, kept.target and (kept.target.start, kept.target.end)) == ("kept", (0, 4))
    assert (missing.verdict, missing.target, missing.entry, missing.expected) == ("missing", None, 1, "RAISE")
    assert [str(match) for match in answer.glossary] == [
        "they → THEY: kept",
        "grow → nothing: missing (expected: RAISE)",
    ]

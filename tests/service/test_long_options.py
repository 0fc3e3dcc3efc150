"""Options as long as a message can hold: what they would keep everybody from is left undone, or done elsewhere."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import grpc
import pytest

from regard.manifest import Task
from regard.text.codec import TextCodec
from regard.v1 import completion_pb2, completion_pb2_grpc, translation_pb2

from .conftest import Serve, write_package
from .test_attribution import request_of as class_request_of
from .test_attribution import stub_of
from .test_translation import CAT, refusal, request_of


@pytest.fixture
def tokenized(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Return the texts of options that are tokenized, each with the thread where it is."""
    seen: list[tuple[str, int]] = []
    pieces = TextCodec.pieces

    def noting(codec: TextCodec, text: str) -> list[int]:
        seen.append((text, threading.get_ident()))
        return pieces(codec, text)

    monkeypatch.setattr(TextCodec, "pieces", noting)
    return seen


async def test_the_texts_of_options_are_tokenized_once_and_in_the_threads(
    serve: Serve, tmp_path: Path, tokenized: list[tuple[str, int]]
) -> None:
    """However many prompts there are, each with its own room for what follows; the event loop goes on meanwhile."""
    write_package(tmp_path, "teller", "1", Task.COMPLETION)
    options: dict[str, Any] = {"bad_words": ["mat", "dog"], "target_prefix": "on the"}
    prompts = ["The cat", "The cat sat", "It was the best of times"]
    async with serve(tmp_path) as running:
        stub = completion_pb2_grpc.CompletionServiceStub(running.channel)
        await stub.Complete(completion_pb2.CompleteRequest(prompts=prompts, generation=options))
        asked = [(request.source.length, request.options) for request in running.worker("teller").seen]
        codec = running.catalog.find("teller").text

    assert sorted(text for text, _ in tokenized) == ["dog", "mat", "on the"]
    assert threading.get_ident() not in {thread for _, thread in tokenized}
    assert codec is not None
    prefix, words = tuple(codec.pieces("on the")), tuple(tuple(codec.pieces(word)) for word in ("mat", "dog"))
    assert len(asked) == len(prompts)
    for length, given in asked:
        assert (given.prefix_token_ids, given.bad_words_ids) == (prefix, words)
        assert given.max_new_tokens == 33 - length - len(prefix)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"generation": {"target_prefix": "a " * 1_000_000}}, "generation.target_prefix has 2000000 characters"),
        ({"generation": {"bad_words": ["a"] * 1_000_000}}, "generation.bad_words has 1000000 words; at most 1024"),
        ({"attention": {"layers": [0] * 1025}}, "attention.layers lists 1025 numbers; at most 1024"),
        ({"attention": {"heads": [0] * 1025}}, "attention.heads lists 1025 numbers; at most 1024"),
        ({"attention": {"kinds": [1] * 3}}, "attention.kinds lists 3 values, and there are 2; name each once"),
        ({"attention": {"stacks": [1] * 5}}, "attention.stacks lists 5 values, and there are 4; name each once"),
        (
            {"interventions": [{"knock_out": {}, "layers": [0] * 1025}]},
            "interventions[0].layers lists 1025 numbers; at most 1024",
        ),
        (
            {"interventions": [{"knock_out": {}, "kinds": [1] * 3}]},
            "interventions[0].kinds lists 3 values, and there are 2",
        ),
    ],
    ids=["prefix", "bad words", "layers", "heads", "kinds", "stacks", "changed layers", "changed kinds"],
)
async def test_what_is_too_long_is_refused_by_name_and_limit(
    serve: Serve, tokenized: list[tuple[str, int]], fields: dict[str, Any], problem: str
) -> None:
    """The whole request is, before anything is made of it."""
    async with serve() as running:
        code, details = await refusal(running.translation.Translate(request_of(CAT, **fields)))
        assert not running.worker().seen

    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert details.startswith(problem)
    assert not tokenized


async def test_a_layer_that_is_listed_again_is_there_once(serve: Serve) -> None:
    """As often as it is; the same of heads."""
    attention = {"layers": [1] * 1024, "heads": [0] * 1024}
    async with serve() as running:
        response = await running.translation.Translate(request_of(CAT, attention=attention))

    (one,) = response.results[0].translation.attention.maps
    assert (one.layer, list(one.heads)) == (1, [0])


async def test_more_methods_than_there_are_are_refused(serve: Serve) -> None:
    """The same of the layers whose heads are knocked out."""
    async with serve() as running:
        _, methods = await refusal(stub_of(running).AttributeClass(class_request_of(CAT, methods=[1] * 8)))
        heads = class_request_of(CAT, methods=[6], heads={"layers": [0] * 1025})
        _, layers = await refusal(stub_of(running).AttributeClass(heads))

    assert methods.startswith("attribution.methods lists 8 values, and there are 7; name each once")
    assert layers.startswith("attribution.heads.layers lists 1025 numbers; at most 1024")


async def test_a_given_output_of_too_many_characters_is_not_tokenized(
    serve: Serve, tokenized: list[tuple[str, int]]
) -> None:
    """It fails alone, with its length and the limit."""
    pairs = [translation_pb2.TranslationPair(text=CAT, target=target) for target in ("a" * 2049, "hello")]
    async with serve() as running:
        response = await running.translation.ScoreTranslation(translation_pb2.ScoreTranslationRequest(pairs=pairs))

    failure = response.results[0].failure
    assert failure.field == "pairs[0].target"
    assert failure.message.startswith("pairs[0].target has 2049 characters, which is more than 2048")
    assert [text for text, _ in tokenized] == ["hello"]

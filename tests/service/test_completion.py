"""Completion through a server: a real package of GPT-2 with a byte-level tokenizer, and both clients."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from structlog.testing import capture_logs
from tests.export.checkpoints import save_completer
from tests.export.vocabularies import every_byte
from tests.serving import answers_of
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from regard.catalog import load_catalog
from regard.cli.app import app
from regard.client import (
    AsyncClient,
    AttentionOptions,
    Client,
    Completion,
    Failure,
    RequestFailed,
    TokenDelta,
)
from regard.config import EngineSettings, ServerSettings
from regard.engine.observer import SilentObserver
from regard.metrics import Metrics
from regard.rpc.server import SERVICES, Server
from regard.worker import Worker
from regard_export.package import Options, export

END, LETTERS = 0, 257


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a GPT-2 that knows every byte."""
    at = tmp_path_factory.mktemp("completion") / "checkpoint"
    save_completer(at, vocab_size=LETTERS, max_position_embeddings=48)
    every_byte().save_pretrained(at)
    return at


@pytest.fixture(scope="module")
def address(checkpoint: Path) -> Iterator[str]:
    """Serve its package from a thread, and return where."""
    models_directory = checkpoint.parent / "models"
    export(checkpoint, models_directory, Options(name="bytes"))
    metrics, loop = Metrics(), asyncio.new_event_loop()
    catalog = load_catalog([models_directory], lambda package: Worker(package, EngineSettings(), SilentObserver()))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> Server:
        server = Server(ServerSettings(grpc_port=0, http_port=0), catalog, metrics)
        await server.start()
        return server

    server = asyncio.run_coroutine_threadsafe(start(), loop).result()
    yield f"127.0.0.1:{server.grpc_port}"
    asyncio.run_coroutine_threadsafe(server.stop(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[Client]:
    """Return a client of the server."""
    with Client(address) as client:
        yield client


@pytest.fixture(scope="module")
def eager(checkpoint: Path) -> tuple[Any, Any]:
    """Return the eager model and its tokenizer."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint, attn_implementation="eager")
    return model.eval(), AutoTokenizer.from_pretrained(checkpoint)


PROMPTS = ["The keys", "a", " ", "\n", "", "Über die Brücke 🦊", "x" * 40]


def test_every_prompt_is_completed_as_generate_does(client: Client, eager: tuple[Any, Any]) -> None:
    """White space, an empty prompt and half of the positions are prompts like any other."""
    model, tokenizer = eager
    for prompt, answer in zip(PROMPTS, client.complete_many(PROMPTS, max_new_tokens=8), strict=True):
        assert isinstance(answer, Completion)
        read = torch.tensor([tokenizer(prompt).input_ids or [END]], dtype=torch.int64)
        expected = model.generate(read, attention_mask=torch.ones_like(read), max_new_tokens=8, do_sample=False)
        written = expected[0, read.shape[1] :]
        assert answer.text == tokenizer.decode(written, skip_special_tokens=True)
        assert (answer.prompt_tokens, answer.target_tokens) == (read.shape[1], len(written))


TEMPLATE = "{% for one in messages %}<|end|>{{ one.role }}: {{ one.content }}{% endfor %}<|end|>"


def test_a_chat_templates_special_tokens_are_read(client: Client, eager: tuple[Any, Any]) -> None:
    """What Transformers' template writes is completed as `generate()` does; without word of it, every byte is text."""
    model, tokenizer = eager
    chat = [{"role": "a", "content": "Hi!"}, {"role": "b", "content": "Über <|end|>"}]
    prompt = tokenizer.apply_chat_template(chat, chat_template=TEMPLATE, tokenize=False)
    read = tokenizer(prompt, add_special_tokens=False, return_tensors="pt").input_ids
    expected = model.generate(read, attention_mask=torch.ones_like(read), max_new_tokens=8, do_sample=False)
    written = tokenizer.decode(expected[0, read.shape[1] :], skip_special_tokens=True)

    answer = client.complete(prompt, templated=True, max_new_tokens=8)
    *_, streamed = client.stream_complete(prompt, templated=True, max_new_tokens=8)

    assert isinstance(streamed, Completion)
    assert read[0].tolist().count(END) == 4
    assert [(one.text, one.prompt_tokens) for one in (answer, streamed)] == [(written, read.shape[1])] * 2
    assert client.complete(prompt, max_new_tokens=1).prompt_tokens == len(prompt.encode())


def test_the_deltas_of_a_stream_are_its_text(client: Client) -> None:
    """No delta holds half a character, though every token is one byte."""
    *deltas, whole = client.stream_complete("Über", max_new_tokens=24, do_sample=True, seed=3)
    assert isinstance(whole, Completion)
    assert all(isinstance(delta, TokenDelta) for delta in deltas)
    assert "".join(delta.text for delta in deltas) == whole.text
    assert len(deltas) == whole.target_tokens
    assert whole.model == client.complete("Über", max_new_tokens=1).model


def test_a_stream_names_the_prompt_that_its_rows_begin_with(client: Client) -> None:
    """The first delta has the prompt's tokens, and rows over them and over what was written are those of the maps."""
    *deltas, whole = client.stream_complete("The keys", max_new_tokens=6, attention=AttentionOptions())
    assert isinstance(whole, Completion)
    assert whole.attention is not None
    told = [delta for delta in deltas if isinstance(delta, TokenDelta)]
    keys = whole.attention.maps[0].keys
    assert [segment.text for segment in told[0].source] == [segment.text for segment in keys[: whole.prompt_tokens]]
    assert not any(delta.source for delta in told[1:])
    for place, delta in enumerate(told):
        for row, one in zip(delta.attention, whole.attention.maps, strict=True):
            seen = row.weights.shape[1]
            assert (row.query, row.key_axis, seen) == (place, "decoder_input", whole.prompt_tokens + place)
            assert np.array_equal(row.weights, one.weights[:, place, :seen])
            assert not one.weights[:, place, seen:].any()


def test_a_stop_string_and_several_beams(client: Client) -> None:
    """The options of a search are those of the other services."""
    several = client.complete("The keys", max_new_tokens=6, num_beams=4, num_return_sequences=3)
    assert len(several.further_sequences) == 2
    assert several.score >= several.further_sequences[0].score
    whole = client.complete("The keys", max_new_tokens=6).text
    stopped = client.complete("The keys", max_new_tokens=6, stop_strings=[whole[2]])
    assert (stopped.finish_reason, stopped.text) == ("stop_string", whole[: whole.index(whole[2])])


def test_attention_covers_the_prompt_and_what_was_written(client: Client, eager: tuple[Any, Any]) -> None:
    """The last query sees every token of both but the last; rows sum to 1 and equal the eager model's."""
    answer = client.complete("The keys", max_new_tokens=4, attention=AttentionOptions())
    assert answer.attention is not None
    assert [(one.kind, one.stack, one.layer) for one in answer.attention.maps] == [
        ("self", "decoder", 0),
        ("self", "decoder", 1),
    ]
    model, tokenizer = eager
    read = torch.tensor(
        [[*tokenizer("The keys").input_ids, *(one.token_id for one in answer.attention.maps[0].queries)]]
    )
    expected = model(read, output_attentions=True).attentions
    for one in answer.attention.maps:
        assert (one.query_axis, one.key_axis) == ("target", "decoder_input")
        assert one.weights.shape == (4, 4, 11)
        assert np.abs(one.weights - expected[one.layer][0, :, 7:11, :11].detach().numpy()).max() < 1e-5
        text = "The keys" + answer.text
        assert [text[key.start : key.end] for key in one.keys][:8] == ["T", "h", "e", "", "k", "e", "y", "s"]
        assert all(key.start >= 8 for key in one.keys[8:])


def test_the_prompt_s_own_attention_is_there_for_who_asks(client: Client, eager: tuple[Any, Any]) -> None:
    """Its maps come from the layers that were asked for, and each token sees those up to itself."""
    answer = client.complete("The keys", max_new_tokens=2, attention=AttentionOptions(layers=[1], prompt=True))
    assert answer.attention is not None
    prompt, written = answer.attention.maps
    assert (prompt.query_axis, prompt.key_axis, prompt.layer) == ("source", "source", 1)
    model, tokenizer = eager
    expected = model(torch.tensor([tokenizer("The keys").input_ids]), output_attentions=True).attentions[1][0]
    assert np.abs(prompt.weights - expected.detach().numpy()).max() < 1e-5
    assert written.layer == 1


def test_a_word_may_begin_in_the_prompt_and_end_behind_it(client: Client) -> None:
    """Words are those of the prompt and the output together; rows still sum to 1."""
    answer = client.complete(
        "The ke", target_prefix="ys", max_new_tokens=1, attention=AttentionOptions(granularity="word", layers=[0])
    )
    assert answer.attention is not None
    (one,) = answer.attention.maps
    assert [key.text for key in one.keys][:2] == ["The", "keys"]
    assert np.allclose(one.weights.sum(-1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        ("x" * 48, {}, "prompts[0] has 48 tokens; the model takes a prompt of at most 47 tokens"),
        ("x" * 40, {"max_new_tokens": 9}, "max_new_tokens is 9; it must be from 1 to 8"),
        ("a\0b", {}, "a NUL (U+0000) at position 1"),
        ("a", {"attention": AttentionOptions(kinds=["cross"])}, "the model gives no cross attention"),
    ],
)
def test_a_bad_prompt_is_told_what_is_wrong(prompt: str, options: dict[str, Any], message: str, client: Client) -> None:
    """The message names the field, the problem and the limit."""
    with pytest.raises(RequestFailed) as raised:
        client.complete(prompt, **options)
    assert message in raised.value.message
    assert raised.value.code_name == "INVALID_ARGUMENT"


def test_one_bad_prompt_leaves_the_others_alone(client: Client) -> None:
    """It has a failure in its place."""
    good, bad = client.complete_many(["a", "x" * 60], max_new_tokens=2)
    assert isinstance(good, Completion)
    assert isinstance(bad, Failure)
    assert bad.field == "prompts[1]"


def test_a_translator_s_call_names_the_right_service(client: Client) -> None:
    """The model is found and does another task."""
    with pytest.raises(RequestFailed, match="call CompletionService"):
        client.translate("a", model="bytes")


def test_the_asynchronous_client_streams_as_well(address: str) -> None:
    """The same method, awaited."""

    async def ask() -> tuple[list[str], Completion]:
        async with AsyncClient(address) as client:
            events = [event async for event in client.stream_complete("The keys", max_new_tokens=5)]
            last = events[-1]
            assert isinstance(last, Completion)
            return [event.text for event in events[:-1]], last

    deltas, whole = asyncio.run(ask())
    assert "".join(deltas) == whole.text


def test_the_server_lists_the_model_and_its_service(client: Client, address: str) -> None:
    """Its task, its taps without those of the prompt, its limits; reflection and health know it."""
    (model,) = client.models()
    assert not model.takes_interventions
    assert (model.task, model.max_source_tokens, model.max_target_tokens) == ("completion", 47, 47)
    assert [(tap.kind, tap.stack, tap.layer) for tap in model.taps] == [("self", "decoder", 0), ("self", "decoder", 1)]
    assert "regard.v1.CompletionService" in SERVICES


def test_a_report_shows_a_completion(address: str, client: Client, tmp_path: Path) -> None:
    """--report prints what follows as always, and its page holds every head's attention to prompt and output."""
    page = tmp_path / "attention.html"
    asked = ["complete", "The keys", "--server", address, "--max-new-tokens", "5", "--report", str(page)]
    expected = client.complete(
        "The keys", max_new_tokens=5, attention=AttentionOptions(reduction="none", granularity="word")
    )
    assert expected.attention is not None
    with capture_logs():
        streamed, whole = (CliRunner().invoke(app, [*asked, *flags]) for flags in ([], ["--no-stream"]))
    (shown,) = answers_of(page)

    assert streamed.stdout == whole.stdout == expected.text + "\n"
    assert streamed.stderr == whole.stderr == f"report written to {page}\n"
    assert (shown["task"], shown["source"], shown["output"]) == ("completion", "The keys", expected.text)
    assert [one["shape"] for one in shown["maps"]] == [list(one.weights.shape) for one in expected.attention.maps]
    assert len(shown["axes"]["decoder_input"]["segments"]) == len(expected.attention.maps[0].keys)


def test_the_command_prints_what_follows(address: str, client: Client) -> None:
    """As it is made, as JSON, and with a grid of attention."""
    expected = client.complete("The keys", max_new_tokens=5).text
    asked = ["complete", "The keys", "--server", address, "--max-new-tokens", "5"]
    with capture_logs():  # the server's, which would stand between
        streamed, whole, record, drawn = (
            CliRunner().invoke(app, [*asked, *flags]) for flags in ([], ["--no-stream"], ["--json"], ["--attention"])
        )
    assert streamed.stdout == whole.stdout == expected + "\n"
    assert json.loads(record.stdout)["text"] == expected
    assert drawn.exit_code == 0
    assert "self-attention" in drawn.stdout

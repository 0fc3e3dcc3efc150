"""Transcription over gRPC, by the clients and on the command line: what goes in, what comes out, what is refused."""

from __future__ import annotations

import asyncio
import io
import json
import threading
import weakref
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import soundfile
from grpc_health.v1 import health_pb2, health_pb2_grpc
from structlog.testing import capture_logs
from typer.testing import CliRunner, Result

from regard.audio.sound import read_file
from regard.catalog import load_catalog
from regard.cli.app import app
from regard.client import AsyncClient, AttentionOptions, Client, Failure, RequestFailed, Samples, Transcription
from regard.config import EngineSettings, ServerSettings
from regard.errors import InvalidInputError, QueueFullError
from regard.metrics import Metrics
from regard.rpc import resources, windows
from regard.rpc.server import Server
from regard.v1 import caption_pb2, caption_pb2_grpc, model_pb2, model_pb2_grpc, transcription_pb2
from regard.worker import Worker

from ..export.speech import LANGUAGES, RATE, chirp  # noqa: TID252 - tests are no package of sys.path
from .test_translation import refusal

INVALID = 3


@dataclass
class Listening:
    """A server of a small Whisper that hears a second at a time."""

    address: str
    channel: grpc.aio.Channel
    metrics: Metrics
    worker: Worker

    async def transcribe(self, *sounds: bytes | Samples, **options: Any) -> list[Transcription | Failure]:
        """Return what the client gets for sounds."""
        async with AsyncClient(self.address) as client:
            return await client.transcribe_many(sounds, **{"max_new_tokens": 8, **options})

    async def command(self, *arguments: str) -> Result:
        """Return how `regard transcribe` ended."""
        given = ["transcribe", *arguments, "--server", self.address]
        return await asyncio.to_thread(CliRunner().invoke, app, given, env={"COLUMNS": "100", "NO_COLOR": "1"})


@pytest.fixture
async def listening(whisper: tuple[Path, Path]) -> AsyncIterator[Listening]:
    """Return a server that takes 10 seconds of sound at most."""
    metrics, settings = Metrics(), EngineSettings(intra_op_threads=1)

    def worker_of(package: Any) -> Worker:
        return Worker(package, settings, metrics.observer(package.manifest.name, package.manifest.version))

    catalog = load_catalog([whisper[1]], worker_of)
    limits: dict[str, Any] = {"max_audio_s": 10, "max_audio_bytes": 2_000_000, "max_attention_bytes": 400_000}
    server = Server(ServerSettings(grpc_port=0, http_port=0, **limits), catalog, metrics)
    with capture_logs():  # which the commands' own output would hold otherwise
        await server.start()
        try:
            address = f"127.0.0.1:{server.grpc_port}"
            async with grpc.aio.insecure_channel(address) as channel:
                worker = catalog.find("tiny").worker
                assert isinstance(worker, Worker)
                yield Listening(address, channel, metrics, worker)
        finally:
            await server.stop()


def file_of(seconds: float = 0.8, kind: str = "WAV", rate: int = RATE, seed: int = 0) -> bytes:
    """Return an audio file."""
    file = io.BytesIO()
    soundfile.write(file, chirp(seconds, seed, rate), rate, format=kind)
    return file.getvalue()


async def test_every_sound_gets_its_transcription(listening: Listening) -> None:
    """Of any format, rate and length, each with its language, its length and what was made of its windows."""
    sounds = [file_of(), file_of(0.5, "FLAC", 44100), file_of(2.3, "OGG", 48000), file_of(0.9, "MP3", 22050)]
    answers = await listening.transcribe(*sounds)
    for answer, seconds in zip(answers, (0.8, 0.5, 2.3, 0.9), strict=True):
        assert isinstance(answer, Transcription)
        assert answer.language in LANGUAGES
        assert answer.duration_s == pytest.approx(seconds, abs=0.1)
        assert len(answer.windows) == int(np.ceil(answer.duration_s))
        assert answer.text == "".join(segment.text for segment in answer.segments)
        assert answer.model is not None
        assert answer.model.name == "tiny"


async def test_one_bad_sound_harms_no_other(listening: Listening) -> None:
    """Text, nothing and too much are refused by name; the sounds beside them are transcribed."""
    answers = await listening.transcribe(file_of(), b"hello", b"", file_of(11), file_of())
    assert [isinstance(answer, Failure) for answer in answers] == [False, True, True, True, False]
    failures = [answer for answer in answers if isinstance(answer, Failure)]
    assert [failure.code for failure in failures] == [INVALID] * 3
    assert [failure.field for failure in failures] == [f"inputs[{index}].file" for index in (1, 2, 3)]
    expected = ["is not audio that can be read", "is empty", "is longer than 10 s"]
    for failure, message in zip(failures, expected, strict=True):
        assert message in failure.message


async def test_a_sound_of_less_than_a_sample_is_refused(listening: Listening) -> None:
    """At the model's rate nothing is left of it to hear; the sound beside it is transcribed."""
    click, attention = Samples([0.5], 48000), AttentionOptions()
    nothing, something = await listening.transcribe(click, file_of(), attention=attention)
    assert isinstance(something, Transcription)
    assert isinstance(nothing, Failure)
    assert (nothing.field, nothing.code) == ("inputs[0].samples", INVALID)
    async with AsyncClient(listening.address) as client:
        with pytest.raises(RequestFailed, match="holds no sound"):
            await anext(client.stream_transcribe(click))


async def test_sounds_wait_while_others_are_held(listening: Listening, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many a request has, it holds no more than 10 s, and that again in each of two threads; all are heard."""
    held, most = 0, 0

    def let_go(count: int) -> None:
        nonlocal held
        held -= count

    def reading(*given: Any) -> Any:
        nonlocal held, most
        samples = read_file(*given)
        held += len(samples)
        most = max(most, held)
        weakref.finalize(samples, let_go, len(samples))
        return samples

    monkeypatch.setattr(resources, "read_file", reading)
    sounds = [file_of(9.0), *[file_of(1.5)] * 4, *[file_of(9.0)] * 5]
    answers = await listening.transcribe(*sounds, max_new_tokens=2)
    assert [len(answer.windows) for answer in answers if isinstance(answer, Transcription)] == [9, *[2] * 4, *[9] * 5]
    assert 10.5 * RATE <= most <= 30 * RATE


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_window_that_finds_the_queue_full_waits(
    listening: Listening, monkeypatch: pytest.MonkeyPatch, streamed: bool
) -> None:
    """It is heard when there is room, and what was heard before is not lost; a sound's first is refused at once."""
    submit, submitted, refused = listening.worker._submit, 0, {2, 4}

    def refusing(*given: Any) -> Any:
        nonlocal submitted
        submitted += 1
        if submitted in refused:
            raise QueueFullError("full", retry_after_s=0.001)
        return submit(*given)

    async def hear() -> Any:
        async with AsyncClient(listening.address) as client:
            if not streamed:
                return await client.transcribe(file_of(2.3), max_new_tokens=8)
            return [event async for event in client.stream_transcribe(file_of(2.3), max_new_tokens=8)][-1]

    undisturbed = await hear()
    monkeypatch.setattr(listening.worker, "_submit", refusing)
    heard = await hear()
    assert heard.text == undisturbed.text
    assert (len(heard.windows), submitted) == (3, 5)
    refused.add(6)
    with pytest.raises(RequestFailed) as failed:
        await hear()
    assert failed.value.code_name == "RESOURCE_EXHAUSTED"
    assert submitted == 6


async def test_an_input_without_a_sound_is_refused(listening: Listening) -> None:
    """Neither file nor samples."""
    request = transcription_pb2.TranscribeRequest(inputs=[transcription_pb2.AudioInput()])
    async with AsyncClient(listening.address) as client:
        response = await client._transcription.Transcribe(request)
    (result,) = response.results
    assert (result.failure.field, result.failure.code) == ("inputs[0]", INVALID)


@pytest.mark.parametrize(
    ("options", "field", "message"),
    [
        ({"language": "xx"}, "language", "language is 'xx'; model tiny knows de, en, fr, ja"),
        ({"target_language": "<|en|>"}, "generation.target_language", "set language, and task"),
        ({"forced_bos_token_id": 3}, "generation.forced_bos_token_id", "set language, and task"),
        ({"max_new_tokens": 45}, "generation.max_new_tokens", "it must be from 1 to 44"),
    ],
)
async def test_what_no_sound_could_have_ends_the_call(
    listening: Listening, options: dict[str, Any], field: str, message: str
) -> None:
    """Unknown languages, and options that say the same twice, are refused by name."""
    with pytest.raises(RequestFailed, match=message) as raised:
        await listening.transcribe(file_of(), **options)
    assert raised.value.failure.code == INVALID
    assert field in str(raised.value)


async def test_a_languages_text_begins_with_its_prefix(listening: Listening) -> None:
    """A target prefix stands behind the tokens of language and task, in the first position of the text."""
    (answer,) = await listening.transcribe(file_of(), language="fr", target_prefix=" the old", token_logprobs=True)
    assert isinstance(answer, Transcription)
    assert answer.text.startswith(" the old")
    tokens = [token.token for token in answer.windows[0].tokens]
    assert tokens[:3] == ["<|fr|>", "<|transcribe|>", "<|notimestamps|>"]


async def test_times_are_those_of_the_sound(listening: Listening) -> None:
    """Segments lie in the order of time, those of later windows behind those of the earlier ones."""
    (answer,) = await listening.transcribe(file_of(2.5), timestamps=True, max_new_tokens=20)
    assert isinstance(answer, Transcription)
    assert answer.text == "".join(segment.text for segment in answer.segments)
    for one, other in zip(answer.segments, answer.segments[1:], strict=False):
        assert one.start_s <= one.end_s
        assert one.start_s <= other.start_s
    spoken = [window for window in answer.windows if window.text]
    assert len(spoken) > 1
    for window in spoken:
        assert any(window.start_s <= segment.start_s <= window.start_s + 1 for segment in answer.segments)


async def test_a_transcription_is_put_together_beside_the_event_loop(
    listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut into segments and detokenized in the threads, whether it comes as a whole or token by token."""
    seen: list[int] = []
    put_together = windows._transcription

    def noting(*given: Any) -> Any:
        seen.append(threading.get_ident())
        return put_together(*given)

    monkeypatch.setattr(windows, "_transcription", noting)
    await listening.transcribe(file_of(), timestamps=True)
    async with AsyncClient(listening.address) as client:
        async for _ in client.stream_transcribe(file_of(), timestamps=True, max_new_tokens=8):
            pass
    assert len(seen) == 2
    assert threading.get_ident() not in seen


async def test_attention_knows_when_each_key_was(listening: Listening) -> None:
    """The key axis tells the time from the beginning of the sound, window by window; its frames are its positions."""
    options = AttentionOptions(layers=(1,), granularity="word")
    (answer,) = await listening.transcribe(file_of(1.5), attention=options)
    assert isinstance(answer, Transcription)
    for start, window in enumerate(answer.windows):
        assert window.attention is not None
        (one,) = window.attention.maps
        assert one.key_frames is not None
        assert (one.key_frames.start_s, one.key_frames.seconds_per_frame) == (start, 0.02)
        assert one.key_frames.end_s == pytest.approx(min(start + 1, 1.5))
        assert one.query_frames is None
        assert one.weights.shape == (4, len(one.queries), 50)
        np.testing.assert_allclose(one.weights.sum(axis=2), 1, atol=1e-5)


async def test_attention_over_the_budget_is_refused_before_anything_is_heard(listening: Listening) -> None:
    """The windows of a sound share its bytes."""
    options = AttentionOptions(kinds=("self",), stacks=("encoder",))
    one, many = await listening.transcribe(file_of(0.9), file_of(9.5), attention=options)
    assert isinstance(one, Transcription)
    assert isinstance(many, Failure)
    assert (many.field, many.code) == ("inputs[1]", INVALID)
    assert "its attention comes to 78.1 KiB, and it may have" in many.message


async def test_a_sound_counts_once_and_its_windows_each_for_themselves(listening: Listening) -> None:
    """In the metrics, three windows are one input, and the prompt of three tokens before each was not generated."""
    (answer,) = await listening.transcribe(file_of(2.5))
    assert isinstance(answer, Transcription)
    sample = listening.metrics.registry.get_sample_value
    labels = {"model": "tiny", "version": "1", "task": "transcription"}
    assert sample("regard_inputs_total", labels | {"code": "OK"}) == 1
    assert sample("regard_requests_total", labels | {"code": "OK"}) == 1
    generated = sum(window.target_tokens - 3 for window in answer.windows)
    assert sample("regard_generated_tokens_total", {"model": "tiny", "version": "1"}) == generated > 0


async def test_who_leaves_a_stream_is_let_go_of(listening: Listening) -> None:
    """Closing the iterator takes its window out of the batch, and the windows behind are not begun."""
    async with AsyncClient(listening.address) as client:
        stream = client.stream_transcribe(file_of(9.0), max_new_tokens=40)
        await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]
        async with asyncio.timeout(10):
            while listening.worker.running or listening.worker.waiting:
                await asyncio.sleep(0)


async def test_the_clients_agree(listening: Listening) -> None:
    """A file, its path and its samples, in threads or in asyncio, at once or token by token, give one text."""
    sound = chirp(1.4)
    file = io.BytesIO()
    soundfile.write(file, sound, RATE, format="WAV", subtype="FLOAT")

    def in_a_thread() -> list[str]:
        with Client(listening.address) as client:
            samples = Samples(sound.tolist(), RATE)
            *deltas, last = client.stream_transcribe(samples, max_new_tokens=8)
            assert isinstance(last, Transcription)
            streamed = "".join(delta.text for delta in deltas)
            whole = client.transcribe(file.getvalue(), max_new_tokens=8)
            assert whole.model == last.model
            return [whole.text, streamed, last.text]

    (answer,) = await listening.transcribe(file.getvalue())
    assert isinstance(answer, Transcription)
    assert set(await asyncio.to_thread(in_a_thread)) == {answer.text}


@pytest.mark.parametrize(
    ("sound", "message"),
    [
        ("speech.wav", "must be the bytes of an audio file, a pathlib.Path or Samples, not str"),
        (Samples([[0.0, 1.0]], RATE), "must be one channel"),
        (Samples(["a"], RATE), "must be numbers"),
        (Samples([0.0], 0), "sampling_rate must be at least 1"),
    ],
)
async def test_what_can_not_be_sent_is_refused_at_once(listening: Listening, sound: Any, message: str) -> None:
    """The client says what is wrong with it."""
    async with AsyncClient(listening.address) as client:
        with pytest.raises(InvalidInputError, match=message):
            await client.transcribe(sound)


async def test_the_server_tells_what_it_hears(listening: Listening) -> None:
    """ListModels and health know the model, and the wrong service is told the right one."""
    listed = await model_pb2_grpc.ModelServiceStub(listening.channel).ListModels(model_pb2.ListModelsRequest())
    (model,) = listed.models
    assert model.task == model_pb2.TASK_TRANSCRIPTION
    assert (model.speech.sampling_rate, model.speech.window_s, model.speech.positions) == (RATE, 1, 50)
    assert list(model.speech.languages) == sorted(LANGUAGES)
    assert (model.speech.translates, model.speech.timestamps) == (True, True)
    health = health_pb2_grpc.HealthStub(listening.channel)
    checked = await health.Check(health_pb2.HealthCheckRequest(service="tiny"))
    assert checked.status == health_pb2.HealthCheckResponse.SERVING
    caption = caption_pb2_grpc.CaptionServiceStub(listening.channel)
    code, details = await refusal(caption.Caption(caption_pb2.CaptionRequest(model_name="tiny", images=[b"x"])))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "call TranscriptionService" in details


async def test_the_command_writes_down_what_is_said(listening: Listening, tmp_path: Path) -> None:
    """One sound gets its text, several a line each, and times or JSON on request."""
    one, other, bad = tmp_path / "one.wav", tmp_path / "other.flac", tmp_path / "bad.wav"
    one.write_bytes(file_of(1.5))
    other.write_bytes(file_of(0.4, "FLAC", 44100))
    bad.write_bytes(b"no sound")
    few = ("--max-new-tokens", "8")
    record = json.loads((await listening.command(str(one), "--json", *few)).stdout)
    assert len(record["windows"]) == 2

    plain = await listening.command(str(one), *few)
    assert (plain.exit_code, plain.stdout) == (0, record["text"].strip() + "\n")
    streamed = await listening.command(str(one), "--stream", *few)
    assert streamed.stdout.strip() == record["text"].strip()
    timed = await listening.command(str(one), "--timestamps", "--language", "en", "--task", "translate", *few)
    assert timed.stdout.startswith("00:0")

    several = await listening.command(str(one), str(bad), str(tmp_path / "gone.wav"), str(other), *few)
    assert several.exit_code == 1
    assert [line.split("\t")[0] for line in several.stdout.splitlines() if "\t" in line] == [str(one), str(other)]
    assert "the sound is not audio that can be read" in several.stderr.replace("\n", " ")
    assert "gone.wav: can't be read: No such file or directory" in several.stderr.replace("\n", " ")


async def test_the_command_draws_when_the_model_listened(listening: Listening, tmp_path: Path) -> None:
    """A grid for each window: words as rows, seconds as columns."""
    sound = tmp_path / "sound.wav"
    sound.write_bytes(file_of(1.5))
    drawn = await listening.command(
        str(sound), "--attention", "--attention-granularity", "token", "--max-new-tokens", "8"
    )
    assert drawn.exit_code == 0, drawn.stderr
    words = " ".join(drawn.stdout.split())  # however wide the terminal is
    assert words.count("attention from each second on · decoder layer 1, mean of 4 heads") == 2
    assert "1.00" in drawn.stdout

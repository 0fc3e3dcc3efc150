"""Whisper behind a real server, against `generate()`: languages, tasks, times, beams, windows and attention."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import torch
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)

from regard.catalog import load_catalog
from regard.config import EngineSettings, ServerSettings
from regard.metrics import Metrics
from regard.rpc.server import Server
from regard.v1 import attention_pb2, generation_pb2, transcription_pb2, transcription_pb2_grpc
from regard.worker import Worker
from regard_export.speech import transcription_of

from ..export.speech import LANGUAGES, RATE, chirp  # noqa: TID252 - tests are no package of sys.path

LENGTHS_S = (0.3, 0.71, 1.0)
FloatArray = npt.NDArray[np.float32]


@dataclass
class Both:
    """A checkpoint in Transformers, eager, and its package behind a server."""

    model: Any
    extractor: Any
    tokenizer: Any
    stub: transcription_pb2_grpc.TranscriptionServiceAsyncStub

    def features(self, sound: FloatArray) -> torch.Tensor:
        """Return what the model is fed for a window of sound."""
        features: torch.Tensor = self.extractor(sound, sampling_rate=RATE, return_tensors="pt").input_features
        return features

    def generated(self, sound: FloatArray, **options: Any) -> list[int]:
        """Return the tokens that `generate()` gives, from the language's on."""
        options = {"max_new_tokens": 24, "force_unique_generate_call": True} | options
        with torch.no_grad():
            tokens: list[int] = self.model.generate(self.features(sound), **options)[0].tolist()
        return tokens[1:]

    async def transcribed(self, *sounds: FloatArray, **fields: Any) -> list[transcription_pb2.Transcription]:
        """Return what the server answers for sounds, whose windows' tokens are listed."""
        asked = {"max_new_tokens": 24, "token_logprobs": True} | fields.pop("generation", {})
        request = transcription_pb2.TranscribeRequest(
            inputs=[transcription_pb2.AudioInput(file=wav(sound)) for sound in sounds],
            generation=generation_pb2.GenerationOptions(**asked),
            **fields,
        )
        response = await self.stub.Transcribe(request)
        for result in response.results:
            assert not result.HasField("failure"), result.failure.message
        return [result.transcription for result in response.results]


def wav(sound: FloatArray, rate: int = RATE) -> bytes:
    """Return a WAV file of floating point samples."""
    file = io.BytesIO()
    soundfile.write(file, sound, rate, format="WAV", subtype="FLOAT")
    return file.getvalue()


def tokens_of(window: transcription_pb2.TranscriptionWindow) -> list[int]:
    """Return a window's tokens."""
    return [token.token_id for token in window.tokens]


@pytest.fixture(scope="module")
def english_place(whisper: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the same checkpoint and its package without languages: a model of one."""
    checkpoint, at = whisper[0], tmp_path_factory.mktemp("english")
    shutil.copytree(checkpoint, at / "checkpoint")
    shutil.copytree(whisper[1], at / "models")
    generation = json.loads((checkpoint / "generation_config.json").read_text())
    for name in ("lang_to_id", "task_to_id"):
        del generation[name]
    generation |= {"is_multilingual": False, "forced_decoder_ids": [[1, generation["no_timestamps_token_id"]]]}
    (at / "checkpoint" / "generation_config.json").write_text(json.dumps(generation))
    spec = transcription_of(GenerationConfig.from_pretrained(at / "checkpoint"), WhisperConfig())
    manifest = json.loads((at / "models" / "tiny" / "1" / "manifest.json").read_text())
    manifest["transcription"] = spec.model_dump(mode="json")
    (at / "models" / "tiny" / "1" / "manifest.json").write_text(json.dumps(manifest))
    return at / "checkpoint", at / "models"


async def _served(checkpoint: Path, models: Path) -> AsyncIterator[Both]:
    metrics, settings = Metrics(), EngineSettings(intra_op_threads=1)

    def worker_of(package: Any) -> Worker:
        return Worker(package, settings, metrics.observer(package.manifest.name, package.manifest.version))

    server = Server(ServerSettings(grpc_port=0, http_port=0), load_catalog([models], worker_of), metrics)
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            yield Both(
                WhisperForConditionalGeneration.from_pretrained(checkpoint, attn_implementation="eager").eval(),
                WhisperFeatureExtractor.from_pretrained(checkpoint),
                WhisperTokenizer.from_pretrained(checkpoint),
                transcription_pb2_grpc.TranscriptionServiceStub(channel),
            )
    finally:
        await server.stop()


@pytest.fixture
async def both(whisper: tuple[Path, Path]) -> AsyncIterator[Both]:
    """Return a model of several languages in both worlds."""
    async for pair in _served(*whisper):
        yield pair


@pytest.fixture
async def english(english_place: tuple[Path, Path]) -> AsyncIterator[Both]:
    """Return a model of one language in both worlds."""
    async for pair in _served(*english_place):
        yield pair


SOUNDS = [chirp(seconds, seed) for seed, seconds in enumerate(LENGTHS_S)]
ASKED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "as the checkpoint asks": ({}, {"task": "transcribe"}),
    "a language": ({"language": "fr"}, {"language": "fr"}),
    "a translation": (
        {"language": "de", "task": transcription_pb2.TRANSCRIPTION_TASK_TRANSLATE},
        {"language": "de", "task": "translate"},
    ),
    "a language to be detected": (
        {"task": transcription_pb2.TRANSCRIPTION_TASK_TRANSLATE},
        {"task": "translate"},
    ),
    "times": ({"language": "en", "timestamps": True}, {"language": "en", "return_timestamps": True}),
    "times, and a language to be detected": (
        {"timestamps": True},
        {"task": "transcribe", "return_timestamps": True},
    ),
    "beams": (
        {"language": "en", "generation": {"num_beams": 4}},
        {"language": "en", "num_beams": 4},
    ),
    "beams in a language to be detected": (
        {"generation": {"num_beams": 3, "length_penalty": 0.5}},
        {"task": "transcribe", "num_beams": 3, "length_penalty": 0.5},
    ),
    "beams with times": (
        {"language": "ja", "timestamps": True, "generation": {"num_beams": 3}},
        {"language": "ja", "return_timestamps": True, "num_beams": 3},
    ),
    "without repetition": (
        {"language": "en", "generation": {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2}},
        {"language": "en", "repetition_penalty": 1.3, "no_repeat_ngram_size": 2},
    ),
}


@pytest.mark.parametrize("name", ASKED)
async def test_tokens_equal_those_of_generate(both: Both, name: str) -> None:
    """Prompt, text, times and end, of sounds of several lengths in one batch; and the text is their decoding."""
    fields, options = ASKED[name]
    answers = await both.transcribed(*SOUNDS, **fields)
    for answer, sound in zip(answers, SOUNDS, strict=True):
        expected = both.generated(sound, **options)
        (window,) = answer.windows
        assert tokens_of(window) == expected[: len(tokens_of(window))]
        assert set(expected[len(tokens_of(window)) :]) <= {both.model.generation_config.pad_token_id}
        text = [token for token in expected if token <= both.model.generation_config.no_timestamps_token_id]
        assert answer.text == window.text == both.tokenizer.decode(text, skip_special_tokens=True)
        assert both.tokenizer.convert_ids_to_tokens(expected[0]) == f"<|{answer.language}|>"


async def test_a_model_of_one_language_equals_generate(english: Both) -> None:
    """Its text begins without a language or a task."""
    (answer,) = await english.transcribed(SOUNDS[0])
    expected = english.generated(SOUNDS[0])
    assert tokens_of(answer.windows[0]) == expected
    assert answer.language == ""


async def test_attention_over_frames_equals_the_eager_model(both: Both) -> None:
    """Cross-attention of every token, and the encoder's own, within 1e-4; axes tell the time."""
    kinds = [attention_pb2.ATTENTION_KIND_CROSS, attention_pb2.ATTENTION_KIND_SELF]
    answers = await both.transcribed(*SOUNDS, language="en", attention=attention_pb2.AttentionOptions(kinds=kinds))
    for answer, sound in zip(answers, SOUNDS, strict=True):
        (window,) = answer.windows
        read = [both.model.generation_config.decoder_start_token_id, *tokens_of(window)[:-1]]
        with torch.no_grad():
            eager = both.model(both.features(sound), decoder_input_ids=torch.tensor([read]), output_attentions=True)
        expected = {
            (attention_pb2.ATTENTION_STACK_DECODER, attention_pb2.ATTENTION_KIND_CROSS): eager.cross_attentions,
            (attention_pb2.ATTENTION_STACK_DECODER, attention_pb2.ATTENTION_KIND_SELF): eager.decoder_attentions,
            (attention_pb2.ATTENTION_STACK_ENCODER, attention_pb2.ATTENTION_KIND_SELF): eager.encoder_attentions,
        }
        assert len(window.attention.maps) == 6
        for one in window.attention.maps:
            weights = np.frombuffer(one.weights, "<f4").reshape(tuple(one.shape))
            np.testing.assert_allclose(weights, expected[one.stack, one.kind][one.layer][0], atol=1e-4, rtol=0)
        axes = {axis.axis: axis for axis in window.attention.axes}
        source = axes[attention_pb2.ATTENTION_AXIS_SOURCE]
        assert source.frames.seconds_per_frame == 0.02
        assert (source.frames.start_s, source.frames.end_s) == (0, pytest.approx(answer.duration_s))
        spoken = [segment for segment in source.segments if not segment.special]
        assert len(source.segments) == 50
        assert len(spoken) == np.ceil(answer.duration_s / 0.02 - 1e-9)
        assert source.segments[3].text == "0.06"


async def test_a_long_sound_is_heard_window_by_window(both: Both) -> None:
    """Each is what `generate()` makes of its own second, in the language found in the first."""
    sound = np.concatenate([chirp(1.0, 5), chirp(1.0, 6), chirp(0.4, 7)])
    (answer,) = await both.transcribed(sound, timestamps=True)
    language = f"<|{answer.language}|>"
    for at, window in enumerate(answer.windows):
        part = sound[at * RATE : (at + 1) * RATE]
        expected = both.generated(part, language=language, task="transcribe", return_timestamps=True)
        assert tokens_of(window) == expected[: len(tokens_of(window))]
        assert (window.start_s, window.end_s) == (at, pytest.approx(at + len(part) / RATE))
    assert len(answer.windows) == 3
    assert answer.duration_s == pytest.approx(2.4)
    assert answer.text == "".join(window.text for window in answer.windows)
    assert answer.text == "".join(segment.text for segment in answer.segments)
    starts = [segment.start_s for segment in answer.segments]
    assert starts == sorted(starts)


async def test_any_rate_and_raw_samples_are_heard_alike(both: Both) -> None:
    """Samples that the model's rate needs no change of give what their file gives."""
    sound = SOUNDS[1]
    raw = transcription_pb2.AudioSamples(samples=sound.tobytes(), sampling_rate=RATE)
    inputs = [transcription_pb2.AudioInput(file=wav(sound)), transcription_pb2.AudioInput(samples=raw)]
    response = await both.stub.Transcribe(transcription_pb2.TranscribeRequest(inputs=inputs))
    one, other = (result.transcription for result in response.results)
    assert one.text == other.text


@pytest.mark.parametrize("fields", [{}, {"language": "de", "timestamps": True}], ids=["plain", "times"])
async def test_a_stream_gives_what_a_call_gives(both: Both, fields: dict[str, Any]) -> None:
    """Deltas, put together, are the text, over all windows; the last event is the whole."""
    sound = np.concatenate([chirp(1.0, 2), chirp(0.6, 3)])
    (whole,) = await both.transcribed(sound, **fields)
    request = transcription_pb2.StreamTranscribeRequest(
        inputs=[transcription_pb2.AudioInput(file=wav(sound))],
        generation=generation_pb2.GenerationOptions(max_new_tokens=24, token_logprobs=True),
        **fields,
    )
    *deltas, last = [event async for event in both.stub.StreamTranscribe(request)]
    assert "".join(event.delta.text for event in deltas) == last.transcription.text == whole.text
    assert [segment.text for segment in last.transcription.segments] == [segment.text for segment in whole.segments]
    assert last.transcription.language == whole.language in LANGUAGES

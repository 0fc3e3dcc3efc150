"""Instances kept busy with made-up requests: what they are fed, and what is counted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from regard.config import EngineSettings
from regard.engine.full_load import SOURCE_TOKENS, TARGET_TOKENS, FullLoad, sources_of
from regard.engine.instances import Sessions
from regard.engine.source import Pixels, Sound, Tokens
from regard.engine.splits import Split
from regard.errors import EngineError
from regard.manifest import AudioSpec, Manifest, Task
from regard.testing import (
    Array,
    FakeClock,
    FakeSession,
    echo_encoder,
    echo_package,
    echo_step,
    sum_package,
    sum_prefill,
    sum_step,
)

from .packages import IMAGE, manifest_of
from .test_engine_generator import Breakable

ROWS = 1024 // SOURCE_TOKENS
"""What an instance is given by default: as many requests as one run of the encoder reads."""


def taking(seconds: float, session: FakeSession, clock: FakeClock) -> FakeSession:
    """Return a session each of whose runs takes so long."""
    compute = session._compute

    def slow(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        clock.advance(seconds)
        return compute(feeds)

    session._compute = slow
    return session


def loaded(manifest: Manifest, sessions: Sessions, clock: FakeClock, instances: int = 1, **settings: Any) -> FullLoad:
    """Return instances at full load."""
    return FullLoad(manifest, sessions, Split(instances, 1), EngineSettings(**settings), clock)


def echo_sessions(clock: FakeClock, *, encoder_s: float = 0.0, step_s: float = 0.01) -> dict[str, FakeSession]:
    """Return the echo translator's graphs."""
    return {"encoder": taking(encoder_s, echo_encoder(), clock), "step": taking(step_s, echo_step(), clock)}


def classifier(clock: FakeClock) -> FakeSession:
    """Return a classifier of two classes, a run of which takes 10 ms."""
    graph = FakeSession(
        lambda feeds: {"logits": np.zeros((len(feeds["source_length"]), 2), np.float32)},
        ["input_ids", "pixel_values", "source_length"],
    )
    return taking(0.01, graph, clock)


def test_tokens_are_counted_against_the_time_of_a_full_batch() -> None:
    """All rows are kept: 32 tokens every 10 ms, in this round and in the next."""
    clock = FakeClock()
    load = loaded(echo_package().manifest, echo_sessions(clock), clock)
    assert [load.serve(), load.serve()] == pytest.approx([ROWS / 0.01] * 2)


def test_reading_the_newcomers_counts() -> None:
    """Every step one of 32 requests ends and another is read, which takes half as long as the step."""
    clock = FakeClock()
    sessions = echo_sessions(clock, encoder_s=0.005)
    assert loaded(echo_package().manifest, sessions, clock).serve() == pytest.approx(ROWS / 0.015)
    first, *later = [len(call["source_length"]) for call in sessions["encoder"].calls]
    assert first == ROWS
    assert set(later) == {1}


def test_a_batch_keeps_within_the_settings() -> None:
    """No more rows than `max_rows`, and no more than an encoder run reads; but at least one."""
    for settings, rows in (({"max_rows": 5}, 5), ({"max_batch_tokens": 96}, 3), ({"max_batch_tokens": 1}, 1)):
        clock = FakeClock()
        sessions = echo_sessions(clock)
        loaded(echo_package().manifest, sessions, clock, max_queue=1, **settings).serve()
        assert {len(call["token_ids"]) for call in sessions["step"].calls} == {rows}


def test_all_instances_work() -> None:
    """Each reads a full batch of its own, on the same sessions, and decodes it."""
    clock = FakeClock()
    sessions = echo_sessions(clock)
    load = loaded(echo_package().manifest, sessions, clock, instances=3)
    assert load.serve() > 0
    assert sorted(len(call["source_length"]) for call in sessions["encoder"].calls)[-3:] == [ROWS] * 3
    assert max(len(call["token_ids"]) for call in sessions["step"].calls) == ROWS


def test_texts_do_not_end_before_their_time() -> None:
    """A model that writes its end at once is kept to the same length as any other."""
    clock = FakeClock()
    sessions = echo_sessions(clock)
    load = loaded(echo_package().manifest, sessions, clock)
    for _ in range(4):
        load.serve()
    longest = max(int(call["row_length"].max()) for call in sessions["step"].calls)
    assert longest == TARGET_TOKENS - 1


@pytest.mark.parametrize("max_tokens", [64, 8, 1])
def test_a_prompt_and_what_follows_fit_the_positions(max_tokens: int) -> None:
    """Prompts of a model that has only a decoder leave room for what is generated."""
    clock = FakeClock()
    sessions = {"prefill": sum_prefill(), "step": taking(0.01, sum_step(), clock)}
    load = loaded(sum_package(max_tokens=max_tokens).manifest, sessions, clock)
    for _ in range(3):
        assert load.serve() > 0
    assert max(int(call["total_length"]) for call in sessions["step"].calls) <= max_tokens


def test_inputs_of_a_classifier_are_counted() -> None:
    """As many as one run answers, every 10 ms."""
    clock = FakeClock()
    manifest = manifest_of(Task.CLASSIFICATION, taps=())
    load = loaded(manifest, {"classifier": classifier(clock)}, clock)
    assert load.serve() == pytest.approx(ROWS / 0.01)


def test_a_model_that_reads_two_kinds_has_both() -> None:
    """Texts and images take turns, each with its graph."""
    clock = FakeClock()
    both = manifest_of(Task.CLASSIFICATION, taps=()).model_copy(update={"task": Task.SIMILARITY, "image": IMAGE})

    def embed(feeds: Mapping[str, Array]) -> dict[str, Array]:
        return {"embeddings": np.ones((len(feeds["source_length"]), 4), np.float32)}

    sessions = {
        "text_encoder": taking(0.01, FakeSession(embed, ["input_ids", "source_length"]), clock),
        "image_encoder": taking(0.01, FakeSession(embed, ["pixel_values", "source_length"]), clock),
    }
    assert loaded(both, sessions, clock).serve() > 0
    assert sessions["text_encoder"].calls and sessions["image_encoder"].calls


def test_sources_are_what_the_manifest_says() -> None:
    """Ids that the model knows, pixels and features of its shapes, and their numbers of positions."""
    text = echo_package().manifest
    assert text.text is not None
    padded = text.model_copy(update={"text": text.text.model_copy(update={"pad_token_id": 7, "max_source_tokens": 20})})
    (tokens,) = sources_of(padded)
    assert isinstance(tokens, Tokens) and tokens.length == 20
    assert tokens.input_ids.min() >= 0 and tokens.input_ids.max() <= 7

    long = text.text.model_copy(update={"max_source_tokens": 2 * SOURCE_TOKENS, "padded_to": "left"})
    (tokens,) = sources_of(text.model_copy(update={"text": long}))
    assert tokens.length == 2 * SOURCE_TOKENS  # a graph that reads padding reads nothing shorter

    (pixels,) = sources_of(manifest_of(Task.CAPTIONING, image=IMAGE))
    assert isinstance(pixels, Pixels)
    assert (pixels.pixel_values.shape, pixels.length) == ((3, 32, 48), IMAGE.positions)

    audio = AudioSpec(
        sampling_rate=16_000, window_s=1, n_fft=400, hop_length=160, mel_bins=8, max_frequency_hz=8e3, positions=50
    )
    speech = manifest_of(Task.TRANSCRIPTION, image=IMAGE).model_copy(update={"image": None, "audio": audio})
    (sound,) = sources_of(speech)
    assert isinstance(sound, Sound)
    assert (sound.input_features.shape, sound.length) == ((8, 100), 50)


def test_a_request_that_fails_fails_the_round() -> None:
    """Whether the engine has ended it or has failed itself, and whichever instance had it."""
    clock = FakeClock()

    def broken(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        raise EngineError("the model failed on the running batch")

    def faulty(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        return {}["logits"]

    sessions = echo_sessions(clock) | {"step": FakeSession(broken, sorted(echo_step().inputs))}
    with pytest.raises(EngineError, match="on the running batch"):
        loaded(echo_package().manifest, sessions, clock, instances=2).serve()
    graph, device = FakeSession(faulty, ["input_ids"]), Breakable()
    graph.memory, device.broken = device, True
    with pytest.raises(EngineError, match="made-up requests"):
        loaded(manifest_of(Task.CLASSIFICATION, taps=()), {"classifier": graph}, clock).serve()

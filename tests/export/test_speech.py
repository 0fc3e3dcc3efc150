"""Models of speech become packages: Whisper, its extractor, its prompts and its times."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tokenizers import Tokenizer
from transformers import GenerationConfig, WhisperConfig, WhisperFeatureExtractor

from regard.manifest import Package, Task, load_package
from regard_export.card import card
from regard_export.checkpoint import load_checkpoint
from regard_export.errors import CheckpointError
from regard_export.families.proven import PROVEN
from regard_export.languages import ANY_LANGUAGES
from regard_export.speech import prompt_of, transcription_of

from .speech import LANGUAGES, MELS, tokenizer
from .test_families import check_generator


@pytest.fixture
def checkpoint(whisper: tuple[Path, Path]) -> Path:
    """Return a checkpoint of several languages."""
    return whisper[0]


@pytest.fixture
def package(whisper: tuple[Path, Path]) -> Package:
    """Return its package."""
    return load_package(whisper[1] / "tiny" / "1")


def test_whisper_equals_its_eager_model(package: Package) -> None:
    """Greedy tokens behind a prompt, logits, and every map over the positions of the sound."""
    manifest = package.manifest
    assert manifest.task is Task.TRANSCRIPTION
    assert PROVEN[Task.TRANSCRIPTION] == ("whisper",)
    check_generator(manifest, json.loads(package.path("parity.json").read_text()))
    assert "source_length" not in {tensor.name for tensor in manifest.graphs["step"].inputs}


def test_the_manifest_says_how_sound_becomes_positions(package: Package) -> None:
    """Rates, windows and bins are the extractor's, and the positions those of the encoder."""
    audio = package.manifest.audio
    assert audio is not None
    assert (audio.sampling_rate, audio.window_s, audio.mel_bins) == (16000, 1, MELS)
    assert (audio.frames, audio.positions, audio.seconds_per_position) == (100, 50, 0.02)
    assert package.manifest.text is not None
    assert not package.manifest.reads_text


def test_languages_tasks_and_times_are_read(package: Package) -> None:
    """Their tokens are those of the tokenizer, by code and name."""
    ids, spec = tokenizer().get_vocab(), package.manifest.transcription
    assert spec is not None
    assert spec.languages == {code: ids[f"<|{code}|>"] for code in LANGUAGES}
    assert spec.tasks == {task: ids[f"<|{task}|>"] for task in ("transcribe", "translate")}
    assert (spec.language, spec.task) == (None, "transcribe")
    assert spec.no_timestamps_token_id == ids["<|notimestamps|>"]
    assert spec.alignment_heads == ((0, 1), (1, 3))


def test_times_are_no_text(package: Package, checkpoint: Path) -> None:
    """The package's tokenizer leaves out what Transformers' leaves out."""
    words, ours = tokenizer(), Tokenizer.from_file(str(package.path("tokenizer.json")))
    ids = [273, 274, 279, 284, *words(" the old house", add_special_tokens=False).input_ids, 300, 272]
    assert ours.decode(ids) == words.decode(ids, skip_special_tokens=True) == " the old house"


def test_the_card_says_what_it_hears(package: Package) -> None:
    """Rate, window, bins and positions stand on one line."""
    console = Console(file=io.StringIO(), width=160)
    console.print(card(package))
    assert (
        "speech in 4 languages, 1 s at a time, of 16,000 Hz in 16 mel bins and 50 positions" in console.file.getvalue()
    )  # type: ignore[attr-defined]


START, EN, FR, TRANSCRIBE, TRANSLATE, SILENT = 1, 2, 3, 4, 5, 6
MULTILINGUAL: dict[str, Any] = {
    "lang_to_id": {"<|en|>": EN, "<|fr|>": FR},
    "task_to_id": {"transcribe": TRANSCRIBE, "translate": TRANSLATE},
    "no_timestamps_token_id": SILENT,
}
PROMPTS: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "of a language to be detected": (MULTILINGUAL, (START, EN, TRANSCRIBE, SILENT)),
    "of a list with a gap for the language": (
        MULTILINGUAL | {"forced_decoder_ids": [[1, None], [2, TRANSLATE]]},
        (START, EN, TRANSLATE, SILENT),
    ),
    "of a list": (
        MULTILINGUAL | {"forced_decoder_ids": [[1, FR], [2, TRANSCRIBE], [3, SILENT]]},
        (START, FR, TRANSCRIBE, SILENT),
    ),
    "of a language by its token": (MULTILINGUAL | {"language": "<|fr|>"}, (START, FR, TRANSCRIBE, SILENT)),
    "of a language and a task": (
        MULTILINGUAL | {"language": "fr", "task": "translate", "forced_decoder_ids": [[1, EN]]},
        (START, FR, TRANSLATE, SILENT),
    ),
    "of one language": (
        {"is_multilingual": False, "forced_decoder_ids": [[1, SILENT]], "no_timestamps_token_id": SILENT},
        (START, SILENT),
    ),
    "of old, before languages were named": (
        {"forced_decoder_ids": [[1, FR], [2, TRANSCRIBE], [3, SILENT]], "no_timestamps_token_id": SILENT},
        (START, FR, TRANSCRIBE, SILENT),
    ),
    "of a model without times": ({"forced_decoder_ids": [[1, FR]]}, (START, FR)),
}


@pytest.mark.parametrize("name", PROMPTS)
def test_a_text_begins_as_the_checkpoint_says(name: str) -> None:
    """Whichever way it says so."""
    fields, expected = PROMPTS[name]
    spec = transcription_of(GenerationConfig(**fields), WhisperConfig(forced_decoder_ids=None))
    assert prompt_of(spec, START) == expected


def test_config_json_may_say_how_a_text_begins() -> None:
    """As that of the first checkpoints does."""
    config = WhisperConfig(forced_decoder_ids=[[1, FR], [2, TRANSCRIBE]])
    spec = transcription_of(GenerationConfig(no_timestamps_token_id=SILENT), config)
    assert prompt_of(spec, START) == (START, FR, TRANSCRIBE, SILENT)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"forced_decoder_ids": [[2, EN]]}, "leave positions out"),
        (MULTILINGUAL | {"language": "xx"}, "sets language to 'xx', which its lang_to_id lacks"),
    ],
)
def test_a_prompt_that_makes_no_sense_is_refused(fields: dict[str, Any], message: str) -> None:
    """The setting is named."""
    with pytest.raises(CheckpointError, match=message):
        transcription_of(GenerationConfig(**fields), WhisperConfig(forced_decoder_ids=None))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"chunk_length": 2}, "makes 16 mel bins of 200 frames, which the model refuses"),
        ({"feature_size": 20}, "makes 20 mel bins of 100 frames, which the model refuses"),
        ({"dither": 0.1}, "sets dither to 0.1, which is unsupported"),
    ],
)
def test_an_extractor_that_does_not_fit_is_refused(
    checkpoint: Path, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    """The file and the setting are named, and the export has not begun."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in checkpoint.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    fields = {"feature_size": MELS, "chunk_length": 1} | settings
    WhisperFeatureExtractor(**fields).save_pretrained(copy)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(copy, ANY_LANGUAGES)


def test_a_checkpoint_without_an_extractor_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    """The message says what to save."""
    copy = tmp_path / "bare"
    copy.mkdir()
    for file in checkpoint.iterdir():
        if file.name != "preprocessor_config.json":
            (copy / file.name).write_bytes(file.read_bytes())
    with pytest.raises(CheckpointError, match=r"has no preprocessor_config\.json; save it with"):
        load_checkpoint(copy, ANY_LANGUAGES)

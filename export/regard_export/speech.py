"""From a checkpoint of speech to the manifest: its feature extractor, and the tokens that its texts begin with."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoFeatureExtractor,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    WhisperFeatureExtractor,
)

from regard.manifest import AudioSpec, TranscriptionSpec
from regard_export.errors import CheckpointError
from regard_export.families import Family
from regard_export.reading import read
from regard_export.tokenization import TOKENIZER_FILE, TokenizerFiles

EXTRACTOR_FILES = ("preprocessor_config.json", "processor_config.json")
SECONDS_PER_TIMESTAMP = 0.02
"""As `generate()` and the tokenizers of all of Whisper's sizes have it."""
_MAX_FREQUENCY_HZ = 8000.0
"""As the extractor has it, whatever the sampling rate."""


def read_extractor(directory: Path) -> Any:
    """Load the feature extractor of a checkpoint."""
    return AutoFeatureExtractor.from_pretrained(directory, local_files_only=True)


def describe(extractor: Any, file: str) -> AudioSpec:
    """Say what an extractor does; the encoder's positions are yet to be counted.

    Raises `CheckpointError` if it is of another kind than Whisper's, or does what an `AudioSpec` can't say.
    """
    if type(extractor) is not WhisperFeatureExtractor:
        raise CheckpointError(
            f"{file} names a {type(extractor).__name__}; of models of speech, those with a WhisperFeatureExtractor "
            "can be exported"
        )
    unsupported = {"dither": 0.0, "padding_value": 0.0, "padding_side": "right"}
    for name, neutral in unsupported.items():
        if getattr(extractor, name) != neutral:
            raise CheckpointError(f"{file} sets {name} to {getattr(extractor, name)}, which is unsupported")
    return AudioSpec(
        sampling_rate=extractor.sampling_rate,
        window_s=extractor.chunk_length,
        n_fft=extractor.n_fft,
        hop_length=extractor.hop_length,
        mel_bins=extractor.feature_size,
        max_frequency_hz=_MAX_FREQUENCY_HZ,
        positions=1,
    )


def audio_of(directory: Path, model: PreTrainedModel, family: Family) -> AudioSpec:
    """Say how sound becomes the model's features, and how many positions it makes of them.

    Raises `CheckpointError` for an extractor that can't be described, or that the model refuses.
    """
    file = next((name for name in EXTRACTOR_FILES if (directory / name).is_file()), None)
    if file is None:
        raise CheckpointError(
            f"{directory.name} has no {EXTRACTOR_FILES[0]}; save it with feature_extractor.save_pretrained"
        )
    spec = describe(read(directory, file, lambda: read_extractor(directory)), file)
    try:
        with torch.no_grad():
            features = torch.zeros(1, spec.mel_bins, spec.frames)
            hidden = family.encode(model, {"input_features": features}).last_hidden_state
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"{directory.name}/{file} makes {spec.mel_bins} mel bins of {spec.frames} frames, which the model refuses: "
            f"{error}"
        ) from error
    assert hidden is not None
    return spec.model_copy(update={"positions": hidden.shape[1]})


def transcription_of(options: GenerationConfig, config: PretrainedConfig) -> TranscriptionSpec:
    """Read how the checkpoint tells its languages, tasks and times.

    `generation_config.json` of today names them; of yore it, or `config.json`, lists the tokens to begin
    with (`forced_decoder_ids`). Raises `CheckpointError` for a list with a gap.
    """
    languages = {_code(token): int(number) for token, number in (getattr(options, "lang_to_id", None) or {}).items()}
    tasks = {name: int(number) for name, number in (getattr(options, "task_to_id", None) or {}).items()}
    if getattr(options, "is_multilingual", True) is False:
        languages, tasks = {}, {}
    no_timestamps = getattr(options, "no_timestamps_token_id", None)
    forced = _forced(getattr(options, "forced_decoder_ids", None) or getattr(config, "forced_decoder_ids", None) or ())
    language, task = getattr(options, "language", None), getattr(options, "task", None)
    if language is None and task is None:
        language = next((code for code, number in languages.items() if number in forced), None)
        task = next((name for name, number in tasks.items() if number in forced), None)
    elif language is not None and _code(language) not in languages:
        raise CheckpointError(f"generation_config.json sets language to {language!r}, which its lang_to_id lacks")
    return TranscriptionSpec(
        languages=languages,
        tasks=tasks,
        language=None if language is None else _code(language),
        task=task or "transcribe",
        prompt_token_ids=() if languages else tuple(token for token in forced if token not in (None, no_timestamps)),
        no_timestamps_token_id=no_timestamps,
        seconds_per_timestamp=SECONDS_PER_TIMESTAMP,
        max_initial_timestamp_index=getattr(options, "max_initial_timestamp_index", None),
        alignment_heads=tuple((layer, head) for layer, head in getattr(options, "alignment_heads", None) or ()),
    )


def with_silent_times(files: TokenizerFiles, options: GenerationConfig) -> TokenizerFiles:
    """Make special tokens of the times, such as `<|0.02|>`: they are no part of a text, and Transformers' are not."""
    first = getattr(options, "no_timestamps_token_id", None)
    described = json.loads(files.contents[TOKENIZER_FILE])
    for token in described["added_tokens"]:
        token["special"] |= first is not None and token["id"] > first
    return replace(files, contents={**files.contents, TOKENIZER_FILE: json.dumps(described, ensure_ascii=False)})


def prompt_of(spec: TranscriptionSpec, start_token_id: int) -> tuple[int, ...]:
    """Return the tokens that a text without times begins with, the start token first, in a language that it has."""
    language = spec.languages.get(spec.language or "", next(iter(spec.languages.values()), None))
    tokens = [start_token_id, *spec.prompt_token_ids, language, spec.tasks.get(spec.task), spec.no_timestamps_token_id]
    return tuple(token for token in tokens if token is not None)


def _code(token: str) -> str:
    return re.sub(r"<\|(.*)\|>", r"\1", token).lower()


def _forced(pairs: Any) -> list[int | None]:
    """Return the tokens that `forced_decoder_ids` puts at positions 1, 2 and so on."""
    if [position for position, _ in pairs] != list(range(1, len(pairs) + 1)):
        raise CheckpointError(f"forced_decoder_ids are {pairs}, which leave positions out; list them from 1 on")
    return [token for _, token in pairs]

"""A Hugging Face checkpoint on disk: what it is, and whether it can be exported."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import transformers
from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification, AutoTokenizer

from regard.manifest import (
    ClassificationSpec,
    GenerationSpec,
    SourceSpec,
    Task,
    TextSpec,
    sha256_of,
)
from regard_export.attention import IMPLEMENTATION
from regard_export.errors import CheckpointError

Loaded = TypeVar("Loaded")

TOKENIZER_FILE = "tokenizer.json"
WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json")


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint: the model in fp32 with Regard's attention, and what the manifest says of it."""

    directory: Path
    task: Task
    model: transformers.PreTrainedModel
    source: SourceSpec
    text: TextSpec
    generation: GenerationSpec | None
    classification: ClassificationSpec | None

    @property
    def tokenizer_file(self) -> Path:
        """The tokenizer, as the `tokenizers` library reads it."""
        return self.directory / TOKENIZER_FILE


def load_checkpoint(directory: Path) -> Checkpoint:
    """Load the checkpoint in `directory`; nothing is fetched from anywhere else.

    Raises `CheckpointError` if a file is missing or damaged, or the model is of a kind that can't
    be exported.
    """
    if not directory.is_dir():
        raise CheckpointError(f"{directory} is not a directory; name the folder that holds config.json")
    weights = _weight_file(directory)
    if not (directory / TOKENIZER_FILE).is_file():
        raise CheckpointError(
            f"{directory.name} has no {TOKENIZER_FILE}; save it with a fast tokenizer (tokenizer.save_pretrained)"
        )
    config = _read(directory, "config.json", lambda: AutoConfig.from_pretrained(directory, local_files_only=True))
    task, auto = _task_of(config, directory.name)
    model, loading = _read(
        directory,
        weights.name,
        lambda: auto.from_pretrained(directory, local_files_only=True, dtype=torch.float32, output_loading_info=True),
    )
    if loading["missing_keys"] or loading["mismatched_keys"]:
        missing = sorted(map(str, [*loading["missing_keys"], *loading["mismatched_keys"]]))
        raise CheckpointError(f"{directory.name}/{weights.name} lacks {len(missing)} weights, the first: {missing[0]}")
    tokenizer = _read(
        directory, TOKENIZER_FILE, lambda: AutoTokenizer.from_pretrained(directory, local_files_only=True)
    )
    model.eval().set_attn_implementation(IMPLEMENTATION)
    return Checkpoint(
        directory=directory,
        task=task,
        model=model,
        source=SourceSpec(
            architecture=type(model).__name__, model_type=config.model_type, weights_sha256=sha256_of(weights)
        ),
        text=TextSpec(
            tokenizer_file=TOKENIZER_FILE,
            max_source_tokens=min(_positions(model, directory.name), tokenizer.model_max_length),
            pad_token_id=_pad_token(config, tokenizer),
        ),
        generation=_generation(model) if task is Task.TRANSLATION else None,
        classification=_classification(config) if task is Task.CLASSIFICATION else None,
    )


def _weight_file(directory: Path) -> Path:
    for name in WEIGHT_FILES:
        if (directory / name).is_file():
            return directory / name
    raise CheckpointError(f"{directory.name} has no model.safetensors; save it with model.save_pretrained")


def _read(directory: Path, file: str, load: Callable[[], Loaded]) -> Loaded:
    """Load quietly, and turn whatever a damaged file raises into one clear error."""
    logging.getLogger("transformers").setLevel(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            return load()
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{directory.name}/{file} can't be loaded: {reason}") from error


def _task_of(config: transformers.PretrainedConfig, name: str) -> tuple[Task, Any]:
    architecture = (config.architectures or ["none named"])[0]
    if type(config) in AutoModelForSeq2SeqLM._model_mapping and config.is_encoder_decoder:
        return Task.TRANSLATION, AutoModelForSeq2SeqLM
    if type(config) in AutoModelForSequenceClassification._model_mapping and architecture.endswith(
        "ForSequenceClassification"
    ):
        return Task.CLASSIFICATION, AutoModelForSequenceClassification
    raise CheckpointError(
        f"{name} is a {architecture} ({config.model_type}); this version exports encoder-decoder translators and "
        "text classifiers (...ForSequenceClassification)"
    )


def _positions(model: transformers.PreTrainedModel, name: str) -> int:
    """Return how many positions an input may have; RoBERTa's kind start behind the padding index."""
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is None:
        kind = model.config.model_type
        raise CheckpointError(f"{name}: its config names no max_position_embeddings; {kind} is unsupported")
    table = getattr(getattr(model.base_model, "embeddings", None), "position_embeddings", None)
    padding_index = getattr(table, "padding_idx", None)
    return int(positions) - (padding_index + 1 if padding_index is not None else 0)


def _pad_token(config: transformers.PretrainedConfig, tokenizer: transformers.PreTrainedTokenizerBase) -> int:
    for candidate in (config.pad_token_id, tokenizer.pad_token_id):
        if candidate is not None:
            return int(candidate)
    return 0


def _generation(model: transformers.PreTrainedModel) -> GenerationSpec:
    """Read what greedy `generate()` would obey; refuse what the engine doesn't have yet."""
    options, config = model.generation_config, model.config
    for name, neutral in (
        ("repetition_penalty", (None, 1.0)),
        ("no_repeat_ngram_size", (None, 0)),
        ("min_length", (None, 0)),
        ("min_new_tokens", (None, 0)),
        ("begin_suppress_tokens", (None, [])),
        ("encoder_no_repeat_ngram_size", (None, 0)),
    ):
        if getattr(options, name, None) not in neutral:
            raise CheckpointError(
                f"generation_config.json sets {name} to {getattr(options, name)}, which this version can't honour; "
                "remove it to export"
            )
    banned = [tuple(word) for word in options.bad_words_ids or []]
    if any(len(word) != 1 for word in banned):
        raise CheckpointError(
            "generation_config.json bans words of several tokens (bad_words_ids), which is unsupported"
        )
    start = options.decoder_start_token_id
    if start is None:
        raise CheckpointError("generation_config.json names no decoder_start_token_id")
    eos = options.eos_token_id if isinstance(options.eos_token_id, list) else [options.eos_token_id]
    if eos == [None]:
        raise CheckpointError("generation_config.json names no eos_token_id")
    positions = int(config.max_position_embeddings)
    longest = min(positions, options.max_length or positions)
    return GenerationSpec(
        start_token_id=start,
        eos_token_ids=tuple(eos),
        pad_token_id=options.pad_token_id if options.pad_token_id is not None else eos[0],
        suppressed_token_ids=tuple(sorted({word[0] for word in banned} | set(options.suppress_tokens or []))),
        forced_bos_token_id=options.forced_bos_token_id,
        forced_eos_token_id=options.forced_eos_token_id,
        max_target_tokens=longest - 1,
        vocabulary_size=int(getattr(config, "decoder_vocab_size", None) or config.vocab_size),
    )


def _classification(config: transformers.PretrainedConfig) -> ClassificationSpec:
    names = {int(index): label for index, label in (config.id2label or {}).items()}
    return ClassificationSpec(
        labels=tuple(names[index] for index in sorted(names)),
        out_of_scope_label=getattr(config, "out_of_scope_label", None),
        out_of_scope_threshold=getattr(config, "out_of_scope_threshold", None),
    )

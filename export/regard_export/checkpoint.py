"""A Hugging Face checkpoint on disk: what it is, and whether it can be exported."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer
from transformers import CONFIG_MAPPING, AutoConfig
from transformers.models.auto import modeling_auto

from regard.manifest import (
    AudioSpec,
    ClassificationSpec,
    GenerationSpec,
    ImageSpec,
    SimilaritySpec,
    SourceSpec,
    Task,
    TextSpec,
    TranscriptionSpec,
    sha256_of,
)
from regard_export import images, speech
from regard_export.errors import CheckpointError
from regard_export.families import (
    Decoder,
    Family,
    family_of,
    logits_of,
    measure_decoder,
    measure_lone_decoder,
    unused_positions,
)
from regard_export.families.proven import unsupported
from regard_export.generation import generation_defaults, suppressed_tokens
from regard_export.inputs import (
    MOST_PROVEN,
    AudioInputs,
    ImageInputs,
    Inputs,
    PaddedTextInputs,
    PromptInputs,
    TextInputs,
)
from regard_export.languages import ANY_LANGUAGES, Languages, choose_languages
from regard_export.places import require_checkpoint
from regard_export.reading import read
from regard_export.similarity import read_padding, similarity_of
from regard_export.stepping import SAMPLE_TOKENS
from regard_export.tokenization import TOKENIZER_FILE, TokenizerFiles, load_tokenizer, tokenizer_files
from regard_export.tokenization.reach import furthest_token, named
from regard_export.weights import weight_file

RELATIVE_POSITIONS = 512
"""The most positions of a model that has no table of them and whose files name no limit either."""
UNLIMITED = 1_000_000
"""From here on, a tokenizer's `model_max_length` is its way to say that it has none."""
TASKS: dict[Task, dict[str, Any]] = {
    Task.TRANSLATION: modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    Task.CAPTIONING: modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    Task.TRANSCRIPTION: modeling_auto.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES,
    Task.COMPLETION: modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    Task.CLASSIFICATION: modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
    | modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
    Task.TOKEN_CLASSIFICATION: modeling_auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
    Task.QUESTION_ANSWERING: modeling_auto.MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES,
    Task.SIMILARITY: modeling_auto.MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES,
}
PAIRED = (Task.CLASSIFICATION, Task.QUESTION_ANSWERING)
"""The tasks whose inputs may be two texts."""
CLASSIFYING = (Task.CLASSIFICATION, Task.TOKEN_CLASSIFICATION)
_UNNAMED = "model of no named class"
"""What errors call the architecture where config.json has no `architectures`."""


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint: the model in fp32 with eager attention, and what the manifest says of it."""

    directory: Path
    task: Task
    model: transformers.PreTrainedModel
    family: Family
    inputs: Inputs
    """What the model reads; of one that compares texts with images, the texts."""
    image_inputs: Inputs | None
    """The images that a model compares with texts."""
    decoder: Decoder | None
    source: SourceSpec
    text: TextSpec | None
    tokenizer_files: Mapping[str, str]
    """The tokenizer, in files that the `tokenizers` library reads, by their names."""
    image: ImageSpec | None
    audio: AudioSpec | None
    generation: GenerationSpec | None
    transcription: TranscriptionSpec | None
    classification: ClassificationSpec | None
    similarity: SimilaritySpec | None

    @property
    def prompt(self) -> tuple[int, ...]:
        """What a decoder reads before the first token of its own: the start token and, of speech, what to write."""
        assert self.generation is not None
        start = self.generation.start_token_id
        return (start,) if self.transcription is None else speech.prompt_of(self.transcription, start)

    @property
    def window(self) -> int | None:
        """How many positions the layers see that don't see all, if there are any."""
        return _window(self.model.config)

    @property
    def sources(self) -> Mapping[str, Inputs]:
        """What each graph reads that reads a source, by the graphs' names."""
        if self.image_inputs is not None:
            return {"text_encoder": self.inputs, "image_encoder": self.image_inputs}
        if self.has_only_decoder:
            return {"prefill": self.inputs}
        return {"encoder" if self.task.generates else "classifier": self.inputs}

    @property
    def has_only_decoder(self) -> bool:
        """Whether a decoder reads the source itself."""
        return self.decoder is not None and not self.decoder.cross


def load_checkpoint(directory: Path, languages: Languages) -> Checkpoint:
    """Load the checkpoint in `directory`; nothing is fetched from anywhere else.

    Raises `CheckpointError` if a file is missing or damaged, or the model is of a kind that can't
    be exported.
    """
    require_checkpoint(directory)
    _require_known(directory)
    config = read(directory, "config.json", lambda: AutoConfig.from_pretrained(directory, local_files_only=True))
    family = family_of(config.model_type)
    task, model_class = _task_of(config, family, directory.name)
    weights = weight_file(directory, config)
    model, missing = _model(directory, weights.name, model_class)
    _require_fixed_angles(model)
    _require_some_window(config)
    compares, listens = task is Task.SIMILARITY, task is Task.TRANSCRIPTION
    sees = compares or task is Task.CAPTIONING or model.main_input_name == "pixel_values"
    reads = compares or not (sees or listens)
    tokenizer = load_tokenizer(directory) if task.generates or reads else None
    if languages != ANY_LANGUAGES or task is Task.TRANSLATION:
        choose_languages(tokenizer, model.generation_config, languages)
    text, files = None, TokenizerFiles({})
    if tokenizer is not None:
        files = tokenizer_files(directory, tokenizer, marked=languages.source is not None)
        if listens:
            files = speech.with_silent_times(files, model.generation_config)
        text = _text(tokenizer, files, model, family, task, reads=reads)
    image = _image(directory, model, family, task) if sees else None
    audio = speech.audio_of(directory, model, family) if listens else None
    transcription = speech.transcription_of(model.generation_config, config) if listens else None
    inputs = _inputs(model, tokenizer, text if reads else None, image, audio, task)
    image_inputs = ImageInputs(image) if compares and image is not None else None
    if missing and not _runs_without(missing, model, family, task, [inputs, *([image_inputs] if image_inputs else [])]):
        raise CheckpointError(f"{directory.name}/{weights.name} lacks {len(missing)} weights, the first: {missing[0]}")
    decoder = None
    if task.generates:
        measured = measure_lone_decoder if _is_lone(task, family) else measure_decoder
        decoder = measured(model, family, inputs.arguments(inputs.example().tensors))
    if isinstance(inputs, TextInputs):
        _require_embedded(directory.name, files, inputs, decoder)
        _require_provable_window(model, family, inputs)
    return Checkpoint(
        directory=directory,
        task=task,
        model=model,
        family=family,
        inputs=inputs,
        image_inputs=image_inputs,
        decoder=decoder,
        source=SourceSpec(
            architecture=type(model).__name__, model_type=config.model_type, weights_sha256=sha256_of(weights)
        ),
        text=text,
        tokenizer_files=files.contents,
        image=image,
        audio=audio,
        generation=_generation(model, family, decoder, task) if decoder else None,
        transcription=transcription,
        classification=_classification(config, task) if task in CLASSIFYING else None,
        similarity=similarity_of(model, family, inputs) if compares else None,
    )


def _require_known(directory: Path) -> None:
    """Refuse a model that Transformers doesn't know, which would ask for another version of Transformers."""
    fields = read(directory, "config.json", lambda: json.loads((directory / "config.json").read_text("utf-8")))
    kind = fields.get("model_type") if isinstance(fields, dict) else None
    if isinstance(kind, str) and kind not in CONFIG_MAPPING:
        architecture = (fields.get("architectures") or [_UNNAMED])[0]
        raise unsupported(directory.name, architecture, kind)


def _model(directory: Path, file: str, model_class: Any) -> tuple[transformers.PreTrainedModel, list[str]]:
    """Load the model, and name the weights that the file lacks."""
    model, loading = read(
        directory,
        file,
        lambda: model_class.from_pretrained(
            directory,
            local_files_only=True,
            dtype=torch.float32,
            attn_implementation="eager",
            output_loading_info=True,
        ),
    )
    return model.eval(), sorted(loading["missing_keys"])


def _require_fixed_angles(model: transformers.PreTrainedModel) -> None:
    """Refuse rotary positions whose angles change once a text is longer than those of the proof."""
    for module in model.modules():
        named = getattr(module, "rope_type", None) or ()
        for kind in named.values() if isinstance(named, Mapping) else [named]:
            if kind == "longrope" or "dynamic" in kind:
                raise CheckpointError(
                    f"{type(model).__name__} turns positions by other angles once a text is long (rope_type {kind}); "
                    "only angles that stay as they are are taken yet"
                )


def _require_some_window(config: transformers.PretrainedConfig) -> None:
    window = _window(config)
    if window is not None and window < 1:
        raise CheckpointError(f"config.json's sliding_window is {window}; make it 1 at least, or null for none")


def _runs_without(
    missing: list[str], model: transformers.PreTrainedModel, family: Family, task: Task, inputs: list[Inputs]
) -> bool:
    """Tell whether the model's answer needs none of these weights, as with a pooling layer that nothing reads."""
    weights = model.state_dict()
    sources = [each.arguments(each.example().tensors) for each in inputs]
    with torch.no_grad():
        for name in missing:
            weights[name].fill_(torch.nan)
        token = torch.zeros(2, 1, dtype=torch.int64)
        if _is_lone(task, family):
            answers = [family.complete(model, sources[0], token).logits]
        elif task.generates:
            answers = [family.decode(model, token, source=sources[0]).logits]
        elif task is Task.SIMILARITY:
            answers = [family.embed(model, source).pooler_output for source in sources]
        else:
            answers = [logits_of(model(**sources[0]))]
    return all(answer is not None and bool(answer.isfinite().all()) for answer in answers)


def _text(
    tokenizer: Any,
    files: TokenizerFiles,
    model: transformers.PreTrainedModel,
    family: Family,
    task: Task,
    *,
    reads: bool,
) -> TextSpec:
    config = getattr(model.config, "text_config", model.config) if task is Task.SIMILARITY else model.config
    completes = task is Task.COMPLETION
    limit = _limit(_positions(config, model, family), tokenizer.model_max_length) - completes  # a prompt leaves room
    return TextSpec(
        tokenizer_file=TOKENIZER_FILE,
        max_source_tokens=limit if reads else None,
        pad_token_id=read_padding(tokenizer) if family.reads_padding else _pad_token(config, tokenizer),
        empty_token_id=model.generation_config.bos_token_id if completes else None,
        source_pieces_file=files.source_pieces,
        target_pieces_file=files.target_pieces,
        token_types=task in PAIRED and _tells_texts_apart(model, tokenizer),
        padded_to=tokenizer.padding_side if family.reads_padding else None,
    )


def _require_embedded(name: str, files: TokenizerFiles, inputs: TextInputs, decoder: Decoder | None) -> None:
    """Refuse a tokenizer that gives what the model has no embedding for: a request with it would fail.

    One that has a vocabulary for each side, as FSMT has, may be as large as the larger.
    """
    vocabulary = Tokenizer.from_str(files.contents[TOKENIZER_FILE])
    rows = max(inputs.vocabulary_size, decoder.vocabulary_size if decoder is not None else 0)
    furthest = furthest_token(vocabulary, inputs.pad_token_id)
    if furthest >= rows:
        raise CheckpointError(
            f"{name}: the tokenizer's tokens go up to {named(vocabulary, furthest)}, but the model's embedding has "
            f"{rows} rows, for tokens up to {rows - 1}: save the tokenizer that the model was trained with beside it, "
            "or resize the embedding (model.resize_token_embeddings) and train the model on"
        )


def _tells_texts_apart(model: transformers.PreTrainedModel, tokenizer: Any) -> bool:
    """Tell whether the model reads which of two texts a token is of, and its tokenizer says so."""
    return (
        (getattr(model.config, "type_vocab_size", None) or 0) > 1
        and "token_type_ids" in tokenizer.model_input_names
        and "token_type_ids" in inspect.signature(model.forward).parameters
    )


def _image(directory: Path, model: transformers.PreTrainedModel, family: Family, task: Task) -> ImageSpec:
    if not (directory / images.PROCESSOR_FILE).is_file():
        raise CheckpointError(
            f"{directory.name} has no {images.PROCESSOR_FILE}; save it with image_processor.save_pretrained"
        )
    spec = images.describe(read(directory, images.PROCESSOR_FILE, lambda: images.read_processor(directory)))
    pixels = torch.zeros(1, 3, spec.height, spec.width)
    try:
        with torch.no_grad():
            look = family.embed if task is Task.SIMILARITY else family.encode
            hidden = look(model, {"pixel_values": pixels}).last_hidden_state
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"{directory.name}/{images.PROCESSOR_FILE} makes images of {spec.height} by {spec.width}, which the model "
            f"refuses: {error}"
        ) from error
    config = getattr(model.config, "encoder", None) or getattr(model.config, "vision_config", None) or model.config
    patch = getattr(config, "patch_size", None)
    if hidden is None or hidden.dim() != 3 or not isinstance(patch, int):
        raise CheckpointError(f"{directory.name}: {config.model_type} has no attention over a grid of square patches")
    return images.with_grid(spec, hidden.shape[1], patch, pools=family.pools(model))


def _inputs(
    model: transformers.PreTrainedModel,
    tokenizer: Any,
    text: TextSpec | None,
    image: ImageSpec | None,
    audio: AudioSpec | None,
    task: Task,
) -> Inputs:
    """Return what the model reads: the text, if there is one."""
    if audio is not None:
        return AudioInputs(audio)
    if text is None:
        assert image is not None
        return ImageInputs(image)
    assert text.max_source_tokens is not None
    end = getattr(model.config, "eos_token_id", None)
    reader = getattr(model, "text_model", model)
    if reader is not model:  # its embedding is that of the end, which its own config may call by another number
        end = tokenizer.eos_token_id
    embeddings = reader.get_input_embeddings()
    assert isinstance(embeddings, torch.nn.Embedding)
    kind: Callable[..., TextInputs] = PromptInputs if task is Task.COMPLETION else TextInputs
    if text.padded_to is not None:
        kind = partial(PaddedTextInputs, side=text.padded_to)
    return kind(
        vocabulary_size=embeddings.num_embeddings,
        max_tokens=max(text.max_source_tokens - (SAMPLE_TOKENS if task is Task.COMPLETION else 0), 1),
        pad_token_id=text.pad_token_id,
        end_token_id=end if isinstance(end, int) and task is not Task.COMPLETION else None,
        token_types=text.token_types,
        window=_window(model.config) or 0,
    )


def _require_provable_window(model: transformers.PreTrainedModel, family: Family, inputs: TextInputs) -> None:
    """Refuse a window that texts may be longer than, but no sample is."""
    window = _window(model.config)
    reach = inputs.max_tokens
    if isinstance(inputs, PromptInputs):
        reach = _limit(_positions(model.config, model, family), None)
    if window is None or window >= reach:
        return
    within = f"{type(model).__name__} attends within {window:,} positions of up to {reach:,}, by its sliding_window"
    if window > MOST_PROVEN:
        raise CheckpointError(f"{within}; more than {MOST_PROVEN:,} aren't taken yet")
    if window >= inputs.longest_sample:
        raise CheckpointError(
            f"{within}, and its tokenizer takes too few tokens for a proof that leaves the window, which reads "
            f"{inputs.longest_sample:,}: make model_max_length in tokenizer_config.json larger"
        )


def _window(config: transformers.PretrainedConfig) -> int | None:
    """Return how many positions the layers see that don't see all, if there are such layers."""
    window, layers = getattr(config, "sliding_window", None), getattr(config, "layer_types", None)
    return window if layers is None or "sliding_attention" in layers else None


def _task_of(config: transformers.PretrainedConfig, family: Family, name: str) -> tuple[Task, Any]:
    """Return the task and the class of the model that config.json names."""
    architecture = (config.architectures or [_UNNAMED])[0]
    for task, classes in TASKS.items():
        known = classes.get(config.model_type)
        if architecture == known or (isinstance(known, tuple | list) and architecture in known):
            kind = family.attends_to_source(config), _is_lone(task, family)
            _require_kind(task, *kind, f"{name} is a {architecture}")
            return task, getattr(transformers, architecture)
    raise unsupported(name, architecture, config.model_type)


def _is_lone(task: Task, family: Family) -> bool:
    """Tell whether a decoder reads the source itself."""
    return task is Task.COMPLETION or (task is Task.CAPTIONING and family.reads_images_itself)


def _require_kind(task: Task, attends_to_source: bool, lone: bool, what: str) -> None:
    if not task.generates and (attends_to_source or lone):
        raise CheckpointError(f"{what}, an encoder-decoder; models for {task.value} must be encoders")
    if task.generates and not (attends_to_source or lone):
        raise CheckpointError(f"{what}, which has no cross-attention; models for {task.value} must be encoder-decoders")


def _positions(config: transformers.PretrainedConfig, stack: torch.nn.Module, family: Family) -> int | None:
    """Return how many positions a stack has; RoBERTa's kind start behind the padding index."""
    positions = family.max_positions(config)
    return None if positions is None else positions - unused_positions(stack)


def _limit(positions: int | None, named: int | None) -> int:
    """Return the most tokens of a text, by the model's positions and by what its files name, if they do."""
    limits = [limit for limit in (positions, named) if limit is not None and limit < UNLIMITED]
    return min(limits, default=RELATIVE_POSITIONS)


def _pad_token(config: transformers.PretrainedConfig, tokenizer: transformers.PreTrainedTokenizerBase) -> int:
    for candidate in (getattr(config, "pad_token_id", None), tokenizer.pad_token_id):
        if candidate is not None:
            return int(candidate)
    return 0


def _generation(model: transformers.PreTrainedModel, family: Family, decoder: Decoder, task: Task) -> GenerationSpec:
    """Read what `generate()` would obey; refuse what the engine doesn't have."""
    options = family.generation(model)
    start = options.decoder_start_token_id if options.decoder_start_token_id is not None else options.bos_token_id
    eos = options.eos_token_id if isinstance(options.eos_token_id, list) else [options.eos_token_id]
    if eos == [None]:
        raise CheckpointError("generation_config.json names no eos_token_id")
    if start is None and task is Task.COMPLETION:
        start = eos[0]
    if start is None:
        raise CheckpointError("generation_config.json names no decoder_start_token_id")
    positions = _positions(model.config.get_text_config(decoder=True), family.decoder(model), family)
    return GenerationSpec(
        start_token_id=start,
        eos_token_ids=tuple(eos),
        pad_token_id=options.pad_token_id if options.pad_token_id is not None else eos[0],
        suppressed_token_ids=suppressed_tokens(options, tuple(eos)),
        forced_bos_token_id=None if task is Task.COMPLETION else options.forced_bos_token_id,  # only behind nothing
        forced_eos_token_id=options.forced_eos_token_id,
        max_target_tokens=_most_target_positions(positions, options) - 1,
        vocabulary_size=decoder.vocabulary_size,
        defaults=generation_defaults(options),
    )


def _most_target_positions(positions: int | None, options: transformers.GenerationConfig) -> int:
    """Return how many positions an output may have, its start included.

    A checkpoint's own lengths are what a request gets that names none, and no limit: in `generate()` any
    `max_new_tokens` of a caller's has precedence.
    """
    named = max(options.max_length or 0, 1 + (options.max_new_tokens or 0))
    return max(RELATIVE_POSITIONS, named) if positions is None else positions


def _classification(config: transformers.PretrainedConfig, task: Task) -> ClassificationSpec:
    """Read the classes; what makes probabilities of their logits is what makes them in Transformers' pipelines."""
    names = {int(index): label for index, label in (config.id2label or {}).items()}
    kind, whole = config.problem_type, task is Task.CLASSIFICATION
    if whole and kind == "regression":
        raise CheckpointError("config.json's problem_type is regression, which gives no classes; unsupported")
    alone = whole and (kind == "multi_label_classification" or len(names) == 1)
    return ClassificationSpec(
        labels=tuple(names[index] for index in sorted(names)),
        out_of_scope_label=getattr(config, "out_of_scope_label", None),
        out_of_scope_threshold=getattr(config, "out_of_scope_threshold", None),
        probabilities="sigmoid" if alone else "softmax",
    )

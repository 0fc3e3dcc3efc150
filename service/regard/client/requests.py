"""What a caller may ask for, and the messages that ask for it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict, TypeVar

import numpy as np
import numpy.typing as npt

from regard.client.failures import InvalidTextError
from regard.client.generation import GenerationOptions, generation_message
from regard.errors import InvalidInputError
from regard.v1 import (
    attention_pb2,
    caption_pb2,
    classification_pb2,
    completion_pb2,
    priority_pb2,
    question_answering_pb2,
    similarity_pb2,
    transcription_pb2,
    translation_pb2,
)

Pair = tuple[str, str]
"""Two texts: such as a premise and a hypothesis, or a question and its context."""

A = TypeVar("A")
B = TypeVar("B", str, bytes, str | bytes, str | bytes | Pair, Pair, transcription_pb2.AudioInput)
V = TypeVar("V")

Image = bytes | os.PathLike[str]
"""An image file: its bytes, or where it lies."""
BYTES_PER_REQUEST = 8 * 2**20
"""Half of what a server takes by default, so that a request of many images is not refused for its size."""

Kind = Literal["self", "cross"]
Stack = Literal["encoder", "decoder", "text_encoder", "image_encoder"]
Reduction = Literal["none", "mean", "max", "alignment_heads"]
Granularity = Literal["token", "word"]
Priority = Literal["low", "normal", "high"]
Markup = Literal["none", "html", "xliff"]
Aggregation = Literal["none", "simple", "first", "average", "max"]


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Sound without a file around it: one channel of samples [n], from -1 to 1, and how many are a second."""

    samples: npt.ArrayLike
    sampling_rate: int


Sound = bytes | os.PathLike[str] | Samples
"""An audio file: its bytes, or where it lies; or samples."""


@dataclass(frozen=True, slots=True)
class AttentionOptions:
    """What attention to return.

    Empty means: `kinds` cross if the model has it and otherwise self, of its decoder if it has one, every
    stack that has them, all layers (counted from 0 within their stack), all heads (counted from 0).
    `prompt` adds a model's maps of its source over itself, where its decoder reads it.
    """

    kinds: Sequence[Kind] = ()
    stacks: Sequence[Stack] = ()
    layers: Sequence[int] = ()
    heads: Sequence[int] = ()
    reduction: Reduction = "none"
    granularity: Granularity = "token"
    prompt: bool = False


class TranslateOptions(GenerationOptions, total=False):
    """The options of a translation, all optional: those of its search, and these."""

    model: str
    """The model's name. Default: the server's only translation model."""
    version: str
    """The model's version. Default: the highest."""
    attention: AttentionOptions
    """The attention to return. Default: none."""
    priority: Priority
    """Whose turn comes first among the requests that wait for a place. Default: normal."""
    truncate: bool
    """Whether a text longer than the model's positions is cut there. Default: it is refused."""
    alignment: bool
    """Whether to tell which words translate which. Default: no."""
    markup: Markup
    """What the texts are marked up with; it's carried over to the translation. Default: none. Not for streams."""


class CaptionOptions(GenerationOptions, total=False):
    """The options of a caption, all optional: those of its search, and these."""

    model: str
    """The model's name. Default: the server's only captioning model."""
    version: str
    """The model's version. Default: the highest."""
    attention: AttentionOptions
    """The attention to return. Default: none."""
    priority: Priority
    """Whose turn comes first among the requests that wait for a place. Default: normal."""


class TranscribeOptions(GenerationOptions, total=False):
    """The options of a transcription, all optional: those of its search, and these."""

    model: str
    """The model's name. Default: the server's only model of speech."""
    version: str
    """The model's version. Default: the highest."""
    language: str
    """The code of the language that is spoken, such as "en". Default: it is found in the first window."""
    task: Literal["transcribe", "translate"]
    """Whether to write what is said, or what it means in English. Default: what is said."""
    timestamps: bool
    """Whether the model says when each segment begins and ends. Default: segments are windows."""
    attention: AttentionOptions
    """The attention to return with each window. Default: none."""
    priority: Priority
    """Whose turn comes first among the requests that wait for a place. Default: normal."""


class CompleteOptions(GenerationOptions, total=False):
    """The options of a completion, all optional: those of its search, and these."""

    model: str
    """The model's name. Default: the server's only completion model."""
    version: str
    """The model's version. Default: the highest."""
    attention: AttentionOptions
    """The attention to return. Default: none."""
    priority: Priority
    """Whose turn comes first among the requests that wait for a place. Default: normal."""


class ClassifyOptions(TypedDict, total=False):
    """The options of a classification, all optional."""

    model: str
    """The model's name. Default: the server's only classification model."""
    version: str
    """The model's version. Default: the highest."""
    top_k: int
    """How many classes to return. Default: 5."""
    attention: AttentionOptions
    """The attention to return. Default: none."""
    priority: Priority
    """Whose turn comes first among the requests that wait for a place. Default: normal."""
    truncate: bool
    """Whether a text longer than the model's positions is cut there. Default: it is refused."""


class ClassifyTokensOptions(TypedDict, total=False):
    """The options of a classification of tokens, all optional."""

    model: str
    """The model's name. Default: the server's only token classification model."""
    version: str
    """The model's version. Default: the highest."""
    aggregation: Aggregation
    """How tokens are put together to entities. Default: "simple"."""
    ignored_labels: Sequence[str]
    """The entities to leave out. Default: "O"."""
    top_k: int
    """How many classes to return for each token. Default: 1."""
    priority: Priority
    """Whose turn comes first among the requests that wait for a place. Default: normal."""
    attention: AttentionOptions
    """The attention to return. Default: none."""
    truncate: bool
    """Whether a text longer than the model's positions is cut there. Default: it is refused."""


class AnswerOptions(TypedDict, total=False):
    """The options of answering a question, all optional."""

    model: str
    """The model's name. Default: the server's only question answering model."""
    version: str
    """The model's version. Default: the highest."""
    top_k: int
    """How many answers to return. Default: 1."""
    max_answer_tokens: int
    """The most tokens of an answer. Default: 15."""
    handle_impossible_answer: bool
    """Whether "there is no answer" is one. Default: False."""
    align_to_words: bool
    """Whether answers are widened to whole words. Default: True."""
    window_tokens: int
    """How many tokens the model reads at once. Default: 384, or its positions if they are fewer."""
    overlap_tokens: int
    """How many tokens of the context a window shares with the one before. Default: at most 128."""
    priority: Priority
    """Whose turn comes first among the requests that wait for a place. Default: normal."""
    attention: AttentionOptions
    """The attention to return, that of the best answer's window. Default: none."""


class CompareOptions(TypedDict, total=False):
    """The options of a comparison, all optional."""

    model: str
    """The model's name. Default: the server's only similarity model."""
    version: str
    """The model's version. Default: the highest."""
    embeddings: bool
    """Whether embeddings are returned. Default: False."""
    priority: Priority
    """Whose turn comes first among the requests that wait for a place. Default: normal."""
    attention: AttentionOptions
    """The attention to return. Default: none."""
    truncate: bool
    """Whether a text longer than the model's positions is cut there. Default: it is refused."""


def split(inputs: Iterable[A], size: int, name: str, read: Callable[[A, str], B]) -> Iterator[tuple[int, list[B]]]:
    """Yield the inputs, each `read`, in parts of at most `size`, with the index of each part's first.

    A part of several holds no more than `BYTES_PER_REQUEST`. `name` is that of the inputs, for errors.
    """
    if isinstance(inputs, str | bytes | os.PathLike):
        raise InvalidTextError(f"{name} must be several inputs, not one: the method of one input takes it", field=name)
    part: list[B] = []
    held = first_index = 0
    for index, given in enumerate(inputs):
        one = read(given, f"{name}[{index}]")
        size_of_one = _size_of(one)
        if part and held + size_of_one > BYTES_PER_REQUEST:
            yield first_index, part
            part, held, first_index = [], 0, index
        part.append(one)
        held += size_of_one
        if len(part) == size:
            yield first_index, part
            part, held, first_index = [], 0, index + 1
    if part:
        yield first_index, part


def _size_of(given: str | bytes | Pair | transcription_pb2.AudioInput) -> int:
    """Return how large an input is, about."""
    if isinstance(given, transcription_pb2.AudioInput):
        return given.ByteSize()
    return sum(map(len, given)) if isinstance(given, tuple) else len(given)


def read_text(text: object, field: str) -> str:
    """Return `text`, or raise `InvalidTextError` for what can't be sent at all; the server judges the rest."""
    if not isinstance(text, str):
        raise InvalidTextError(f"{field} must be a string, not {type(text).__name__}", field=field)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidTextError(
            f"{field} holds a lone surrogate (U+{ord(text[error.start]):04X}) at position {error.start}, "
            "which UTF-8 can't carry: decode the text with its right encoding, or replace it",
            field=field,
        ) from error
    return text


def read_image(image: object, field: str) -> bytes:
    """Return the bytes of an image file; the server judges them. Raises `OSError` if it can't be read."""
    if isinstance(image, bytes):
        return image
    if isinstance(image, os.PathLike):
        return Path(image).read_bytes()
    raise InvalidInputError(
        f"{field} must be the bytes of an image file or a pathlib.Path, not {type(image).__name__}", field=field
    )


def read_sound(sound: object, field: str) -> transcription_pb2.AudioInput:
    """Return the message of a sound; the server judges it. Raises `OSError` for a file that can't be read."""
    if isinstance(sound, bytes):
        return transcription_pb2.AudioInput(file=sound)
    if isinstance(sound, os.PathLike):
        return transcription_pb2.AudioInput(file=Path(sound).read_bytes())
    if isinstance(sound, Samples):
        try:
            samples = np.asarray(sound.samples, "<f4")
        except (TypeError, ValueError) as error:
            raise InvalidInputError(f"{field}.samples must be numbers", field=f"{field}.samples") from error
        if samples.ndim != 1:
            raise InvalidInputError(
                f"{field}.samples must be one channel, [n], not {list(samples.shape)}", field=f"{field}.samples"
            )
        given = transcription_pb2.AudioSamples(
            samples=samples.tobytes(), sampling_rate=_count(sound.sampling_rate, f"{field}.sampling_rate")
        )
        return transcription_pb2.AudioInput(samples=given)
    raise InvalidInputError(
        f"{field} must be the bytes of an audio file, a pathlib.Path or Samples, not {type(sound).__name__}",
        field=field,
    )


def read_pair(given: object, field: str) -> Pair:
    """Return two texts; raises `InvalidTextError` for anything else."""
    if not isinstance(given, tuple) or len(given) != 2:
        raise InvalidTextError(f"{field} must be a tuple of two texts, not {type(given).__name__}", field=field)
    return read_text(given[0], f"{field}[0]"), read_text(given[1], f"{field}[1]")


def read_input(given: object, field: str) -> str | bytes | Pair:
    """Return a text, two texts, or the bytes of an image file; raises as what reads each of them does."""
    if isinstance(given, tuple):
        return read_pair(given, field)
    return read_image(given, field) if isinstance(given, bytes | os.PathLike) else read_text(given, field)


def translate_request(texts: Sequence[str], options: TranslateOptions) -> translation_pb2.TranslateRequest:
    """Return the message that asks for the translation of `texts`."""
    return translation_pb2.TranslateRequest(
        model_name=options.get("model", ""),
        model_version=options.get("version", ""),
        texts=texts,
        generation=generation_message(options),
        attention=_attention(options.get("attention")),
        priority=_priority(options.get("priority")),
        truncate=options.get("truncate", False),
        alignment=options.get("alignment", False),
        markup=_markup(options.get("markup", "none")),
    )


def stream_translate_request(text: str, options: TranslateOptions) -> translation_pb2.StreamTranslateRequest:
    """Return the message that asks for the translation of `text`, token by token."""
    read_text(text, "text")
    if options.get("markup", "none") != "none":
        raise InvalidInputError(
            "markup: a stream can't place it before the last token; translate without streaming", field="markup"
        )
    return translation_pb2.StreamTranslateRequest(
        model_name=options.get("model", ""),
        model_version=options.get("version", ""),
        texts=[text],
        generation=generation_message(options),
        attention=_attention(options.get("attention")),
        priority=_priority(options.get("priority")),
        truncate=options.get("truncate", False),
        alignment=options.get("alignment", False),
    )


def caption_request(images: Sequence[bytes], options: CaptionOptions) -> caption_pb2.CaptionRequest:
    """Return the message that asks for the captions of `images`."""
    return caption_pb2.CaptionRequest(
        model_name=options.get("model", ""),
        model_version=options.get("version", ""),
        images=images,
        generation=generation_message(options),
        attention=_attention(options.get("attention")),
        priority=_priority(options.get("priority")),
    )


def stream_caption_request(image: Image, options: CaptionOptions) -> caption_pb2.StreamCaptionRequest:
    """Return the message that asks for the caption of `image`, token by token."""
    return caption_pb2.StreamCaptionRequest(
        model_name=options.get("model", ""),
        model_version=options.get("version", ""),
        images=[read_image(image, "image")],
        generation=generation_message(options),
        attention=_attention(options.get("attention")),
        priority=_priority(options.get("priority")),
    )


def complete_request(prompts: Sequence[str], options: CompleteOptions) -> completion_pb2.CompleteRequest:
    """Return the message that asks for what follows `prompts`."""
    return completion_pb2.CompleteRequest(
        model_name=options.get("model", ""),
        model_version=options.get("version", ""),
        prompts=prompts,
        generation=generation_message(options),
        attention=_attention(options.get("attention")),
        priority=_priority(options.get("priority")),
    )


def stream_complete_request(prompt: str, options: CompleteOptions) -> completion_pb2.StreamCompleteRequest:
    """Return the message that asks for what follows `prompt`, token by token."""
    return completion_pb2.StreamCompleteRequest(
        model_name=options.get("model", ""),
        model_version=options.get("version", ""),
        prompts=[read_text(prompt, "prompt")],
        generation=generation_message(options),
        attention=_attention(options.get("attention")),
        priority=_priority(options.get("priority")),
    )


def transcribe_request(
    sounds: Sequence[transcription_pb2.AudioInput], options: TranscribeOptions
) -> transcription_pb2.TranscribeRequest:
    """Return the message that asks for the transcriptions of `sounds`."""
    return transcription_pb2.TranscribeRequest(
        model_name=options.get("model", ""),
        model_version=options.get("version", ""),
        inputs=sounds,
        language=options.get("language", ""),
        task=_task(options),
        timestamps=options.get("timestamps", False),
        generation=generation_message(options),
        attention=_attention(options.get("attention")),
        priority=_priority(options.get("priority")),
    )


def stream_transcribe_request(sound: Sound, options: TranscribeOptions) -> transcription_pb2.StreamTranscribeRequest:
    """Return the message that asks for the transcription of `sound`, token by token."""
    return transcription_pb2.StreamTranscribeRequest(
        model_name=options.get("model", ""),
        model_version=options.get("version", ""),
        inputs=[read_sound(sound, "sound")],
        language=options.get("language", ""),
        task=_task(options),
        timestamps=options.get("timestamps", False),
        generation=generation_message(options),
        attention=_attention(options.get("attention")),
        priority=_priority(options.get("priority")),
    )


def _task(options: TranscribeOptions) -> transcription_pb2.TranscriptionTask.ValueType:
    if "task" not in options:
        return transcription_pb2.TRANSCRIPTION_TASK_UNSPECIFIED
    return _value(transcription_pb2.TranscriptionTask.Value, "TRANSCRIPTION_TASK_", options["task"], "task")


def classify_request(
    inputs: Sequence[str | bytes | Pair], options: ClassifyOptions
) -> classification_pb2.ClassifyRequest:
    """Return the message that asks for the classification of `inputs`: texts, pairs of texts, or images."""
    return classification_pb2.ClassifyRequest(
        model_name=options.get("model", ""),
        model_version=options.get("version", ""),
        inputs=[_classification_input(one) for one in inputs],
        top_k=_count(options.get("top_k"), "top_k"),
        attention=_attention(options.get("attention")),
        priority=_priority(options.get("priority")),
        truncate=options.get("truncate", False),
    )


def _classification_input(given: str | bytes | Pair) -> classification_pb2.ClassificationInput:
    if isinstance(given, bytes):
        return classification_pb2.ClassificationInput(image=given)
    text, pair = given if isinstance(given, tuple) else (given, None)
    return classification_pb2.ClassificationInput(text=text, text_pair=pair)


def classify_tokens_request(
    texts: Sequence[str], options: ClassifyTokensOptions
) -> classification_pb2.ClassifyTokensRequest:
    """Return the message that asks for the classes of the tokens of `texts`."""
    aggregation = classification_pb2.EntityAggregation.Value
    return classification_pb2.ClassifyTokensRequest(
        model_name=options.get("model", ""),
        model_version=options.get("version", ""),
        texts=texts,
        aggregation=_value(aggregation, "ENTITY_AGGREGATION_", options.get("aggregation", "simple"), "aggregation"),
        ignored_labels=options.get("ignored_labels", ()),
        top_k=_count(options.get("top_k"), "top_k"),
        attention=_attention(options.get("attention")),
        priority=_priority(options.get("priority")),
        truncate=options.get("truncate", False),
    )


def answer_request(questions: Sequence[Pair], options: AnswerOptions) -> question_answering_pb2.AnswerRequest:
    """Return the message that asks for the answers to `questions`, each with its context."""
    return question_answering_pb2.AnswerRequest(
        model_name=options.get("model", ""),
        model_version=options.get("version", ""),
        inputs=[question_answering_pb2.QuestionInput(question=one, context=context) for one, context in questions],
        top_k=_count(options.get("top_k"), "top_k"),
        max_answer_tokens=_count(options.get("max_answer_tokens"), "max_answer_tokens"),
        handle_impossible_answer=options.get("handle_impossible_answer", False),
        align_to_words=options.get("align_to_words", True),
        window_tokens=_count(options.get("window_tokens"), "window_tokens"),
        overlap_tokens=options.get("overlap_tokens"),
        attention=_attention(options.get("attention")),
        priority=_priority(options.get("priority")),
    )


def compare_request(
    images: Iterable[Image], texts: Iterable[str], options: CompareOptions
) -> similarity_pb2.CompareRequest:
    """Return the message that asks for the comparison of `images` with `texts`."""
    for name, given in (("images", images), ("texts", texts)):
        if isinstance(given, str | bytes | os.PathLike):
            raise InvalidTextError(f"{name} must be several, not one: give a list", field=name)
    return similarity_pb2.CompareRequest(
        model_name=options.get("model", ""),
        model_version=options.get("version", ""),
        images=[read_image(image, f"images[{index}]") for index, image in enumerate(images)],
        texts=[read_text(text, f"texts[{index}]") for index, text in enumerate(texts)],
        attention=_attention(options.get("attention")),
        priority=_priority(options.get("priority")),
        truncate=options.get("truncate", False),
        return_embeddings=options.get("embeddings", False),
    )


def _count(value: int | None, field: str) -> int:
    if value is None:
        return 0
    if not 1 <= value < 2**32:
        raise InvalidInputError(f"{field} must be at least 1, not {value}", field=field)
    return value


def _indices(values: Iterable[int], field: str) -> list[int]:
    indices = list(values)
    for value in indices:
        if not 0 <= value < 2**32:
            raise InvalidInputError(f"{field} are counted from 0, so {value} is none", field=field)
    return indices


def _attention(options: AttentionOptions | None) -> attention_pb2.AttentionOptions | None:
    if options is None:
        return None
    kind, stack = attention_pb2.AttentionKind.Value, attention_pb2.AttentionStack.Value
    reduction, granularity = attention_pb2.AttentionReduction.Value, attention_pb2.AttentionGranularity.Value
    return attention_pb2.AttentionOptions(
        kinds=[_value(kind, "ATTENTION_KIND_", one, "attention.kinds") for one in options.kinds],
        stacks=[_value(stack, "ATTENTION_STACK_", one, "attention.stacks") for one in options.stacks],
        layers=_indices(options.layers, "attention.layers"),
        heads=_indices(options.heads, "attention.heads"),
        reduction=_value(reduction, "ATTENTION_REDUCTION_", options.reduction, "attention.reduction"),
        granularity=_value(granularity, "ATTENTION_GRANULARITY_", options.granularity, "attention.granularity"),
        prompt=options.prompt,
    )


def _markup(word: Markup) -> translation_pb2.Markup.ValueType:
    return _value(translation_pb2.Markup.Value, "MARKUP_", word, "markup")


def _priority(word: Priority | None) -> priority_pb2.Priority.ValueType:
    if word is None:
        return priority_pb2.PRIORITY_UNSPECIFIED
    return _value(priority_pb2.Priority.Value, "PRIORITY_", word, "priority")


def _value(value_of: Callable[[str], V], prefix: str, word: str, field: str) -> V:
    try:
        return value_of(prefix + word.upper())
    except ValueError as error:
        raise InvalidInputError(f"{field} has no value {word!r}", field=field) from error

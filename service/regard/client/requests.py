"""What a caller may ask for, and the messages that ask for it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict, TypeVar

from regard.client.failures import InvalidTextError
from regard.client.generation import GenerationOptions, generation_message
from regard.errors import InvalidInputError
from regard.v1 import attention_pb2, caption_pb2, classification_pb2, priority_pb2, translation_pb2

A = TypeVar("A")
B = TypeVar("B", str, bytes, str | bytes)
V = TypeVar("V")

Image = bytes | os.PathLike[str]
"""An image file: its bytes, or where it lies."""
BYTES_PER_REQUEST = 8 * 2**20
"""Half of what a server takes by default, so that a request of many images is not refused for its size."""

Kind = Literal["self", "cross"]
Stack = Literal["encoder", "decoder"]
Reduction = Literal["none", "mean", "max"]
Granularity = Literal["token", "word"]
Priority = Literal["low", "normal", "high"]


@dataclass(frozen=True, slots=True)
class AttentionOptions:
    """What attention to return.

    Empty means: `kinds` cross for a translation or a caption and self for a classification, every stack that
    has them, all layers (counted from 0 within their stack), all heads (counted from 0).
    """

    kinds: Sequence[Kind] = ()
    stacks: Sequence[Stack] = ()
    layers: Sequence[int] = ()
    heads: Sequence[int] = ()
    reduction: Reduction = "none"
    granularity: Granularity = "token"


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
        if part and held + len(one) > BYTES_PER_REQUEST:
            yield first_index, part
            part, held, first_index = [], 0, index
        part.append(one)
        held += len(one)
        if len(part) == size:
            yield first_index, part
            part, held, first_index = [], 0, index + 1
    if part:
        yield first_index, part


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


def read_input(given: object, field: str) -> str | bytes:
    """Return a text, or the bytes of an image file; raises as `read_text` and `read_image` do."""
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
    )


def stream_translate_request(text: str, options: TranslateOptions) -> translation_pb2.StreamTranslateRequest:
    """Return the message that asks for the translation of `text`, token by token."""
    read_text(text, "text")
    return translation_pb2.StreamTranslateRequest(
        model_name=options.get("model", ""),
        model_version=options.get("version", ""),
        texts=[text],
        generation=generation_message(options),
        attention=_attention(options.get("attention")),
        priority=_priority(options.get("priority")),
        truncate=options.get("truncate", False),
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


def classify_request(inputs: Sequence[str | bytes], options: ClassifyOptions) -> classification_pb2.ClassifyRequest:
    """Return the message that asks for the classification of `inputs`: texts, or images."""
    return classification_pb2.ClassifyRequest(
        model_name=options.get("model", ""),
        model_version=options.get("version", ""),
        inputs=[
            classification_pb2.ClassificationInput(text=one)
            if isinstance(one, str)
            else classification_pb2.ClassificationInput(image=one)
            for one in inputs
        ],
        top_k=_count(options.get("top_k"), "top_k"),
        attention=_attention(options.get("attention")),
        priority=_priority(options.get("priority")),
        truncate=options.get("truncate", False),
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
    )


def _priority(word: Priority | None) -> priority_pb2.Priority.ValueType:
    if word is None:
        return priority_pb2.PRIORITY_UNSPECIFIED
    return _value(priority_pb2.Priority.Value, "PRIORITY_", word, "priority")


def _value(value_of: Callable[[str], V], prefix: str, word: str, field: str) -> V:
    try:
        return value_of(prefix + word.upper())
    except ValueError as error:
        raise InvalidInputError(f"{field} has no value {word!r}", field=field) from error

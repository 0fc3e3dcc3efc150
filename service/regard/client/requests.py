"""What a caller may ask for, and the messages that ask for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, TypedDict, TypeVar

from regard.client.failures import InvalidTextError
from regard.errors import InvalidInputError
from regard.v1 import attention_pb2, classification_pb2, generation_pb2, translation_pb2

V = TypeVar("V")

Kind = Literal["self", "cross"]
Stack = Literal["encoder", "decoder"]
Reduction = Literal["none", "mean", "max"]
Granularity = Literal["token", "word"]


@dataclass(frozen=True, slots=True)
class AttentionOptions:
    """What attention to return.

    Empty means: `kinds` cross for a translation and self for a classification, every stack that
    has them, all layers (counted from 0 within their stack), all heads (counted from 0).
    """

    kinds: Sequence[Kind] = ()
    stacks: Sequence[Stack] = ()
    layers: Sequence[int] = ()
    heads: Sequence[int] = ()
    reduction: Reduction = "none"
    granularity: Granularity = "token"


class TranslateOptions(TypedDict, total=False):
    """The options of a translation, all optional."""

    model: str
    """The model's name. Default: the server's only translation model."""
    version: str
    """The model's version. Default: the highest."""
    max_new_tokens: int
    """The most tokens to generate, the end of the sentence included. Default: the model's limit."""
    attention: AttentionOptions
    """The attention to return. Default: none."""
    truncate: bool
    """Whether a text longer than the model's positions is cut there. Default: it is refused."""


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
    truncate: bool
    """Whether a text longer than the model's positions is cut there. Default: it is refused."""


def split(texts: Iterable[str], size: int) -> Iterator[tuple[int, list[str]]]:
    """Yield the texts in parts of at most `size`, each with the index of its first; checked."""
    if isinstance(texts, str | bytes):
        raise InvalidTextError("texts must be several strings, not one: the method of one text takes it", field="texts")
    remaining, first_index = iter(texts), 0
    while part := list(islice(remaining, size)):
        for offset, text in enumerate(part):
            check_text(text, f"texts[{first_index + offset}]")
        yield first_index, part
        first_index += len(part)


def check_text(text: object, field: str) -> None:
    """Raise `InvalidTextError` for what can't be sent at all; the server judges the rest."""
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


def translate_request(texts: Sequence[str], options: TranslateOptions) -> translation_pb2.TranslateRequest:
    """Return the message that asks for the translation of `texts`."""
    return translation_pb2.TranslateRequest(
        model_name=options.get("model", ""),
        model_version=options.get("version", ""),
        texts=texts,
        generation=_generation(options),
        attention=_attention(options.get("attention")),
        truncate=options.get("truncate", False),
    )


def stream_translate_request(text: str, options: TranslateOptions) -> translation_pb2.StreamTranslateRequest:
    """Return the message that asks for the translation of `text`, token by token."""
    check_text(text, "text")
    return translation_pb2.StreamTranslateRequest(
        model_name=options.get("model", ""),
        model_version=options.get("version", ""),
        texts=[text],
        generation=_generation(options),
        attention=_attention(options.get("attention")),
        truncate=options.get("truncate", False),
    )


def classify_request(texts: Sequence[str], options: ClassifyOptions) -> classification_pb2.ClassifyRequest:
    """Return the message that asks for the classification of `texts`."""
    return classification_pb2.ClassifyRequest(
        model_name=options.get("model", ""),
        model_version=options.get("version", ""),
        inputs=[classification_pb2.ClassificationInput(text=text) for text in texts],
        top_k=_count(options.get("top_k"), "top_k"),
        attention=_attention(options.get("attention")),
        truncate=options.get("truncate", False),
    )


def _generation(options: TranslateOptions) -> generation_pb2.GenerationOptions:
    return generation_pb2.GenerationOptions(
        max_new_tokens=_count(options.get("max_new_tokens"), "generation.max_new_tokens")
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


def _value(value_of: Callable[[str], V], prefix: str, word: str, field: str) -> V:
    try:
        return value_of(prefix + word.upper())
    except ValueError as error:
        raise InvalidInputError(f"{field} has no value {word!r}", field=field) from error

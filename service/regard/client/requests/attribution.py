"""What a caller may ask of an attribution, and the messages that ask for it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

from regard.client.generation import GenerationOptions, generation_message
from regard.client.requests.attention import Kind, Stack
from regard.client.requests.classification import classification_input
from regard.client.requests.inputs import Pair, read_image, read_pair, read_text
from regard.client.requests.options import read_options
from regard.client.requests.values import Priority, enum_value, priority_message, read_count, read_indices
from regard.v1 import attention_pb2, attribution_pb2

Method = Literal[
    "leave_one_out", "occlusion", "last_layer", "rollout", "alignment_heads", "head_knock_out", "value_norm"
]


@dataclass(frozen=True, slots=True)
class HeadChoice:
    """Which heads head_knock_out takes away: all of some layers.

    Empty means: all `kinds` that the stacks have, every one of the `stacks` that has them, and all `layers`, counted
    from 0.
    """

    kinds: Sequence[Kind] = ()
    stacks: Sequence[Stack] = ()
    layers: Sequence[int] = ()


class AttributionOptions(TypedDict, total=False):
    """What to tell of an input, all optional."""

    model: str
    """The model's name. Default: the server's only model for the task."""
    version: str
    """The model's version. Default: the highest."""
    methods: Sequence[Method]
    """How to tell what a part is worth. Default: every way that the model and the input allow, but head_knock_out.

    That tells what each head is worth, of a model that takes interventions.
    """
    granularity: Literal["token", "word"]
    """Whether the parts of a text are its words or its tokens. Default: words."""
    occlusion_window: int
    """How many words, or patches of a square's side, are covered at once. Default: 2 words, or a fifth of a side."""
    occlusion_stride: int
    """By how many such windows are apart. Default: 1."""
    faithfulness: bool
    """Whether to measure how faithful each method is, and random orders beside. Default: no."""
    overlay: bool
    """Whether each method's weights come drawn over the image as well. Default: no. Texts have none."""
    heads: HeadChoice
    """Which heads head_knock_out takes away, each in turn. Default: all."""
    priority: Priority
    """Whose turn comes first among the requests that wait for a place. Default: normal."""


class AttributeClassOptions(AttributionOptions, total=False):
    """The options of the attribution of a class, all optional."""

    label: str
    """The class to explain. Default: each input's likeliest."""
    truncate: bool
    """Whether a text longer than the model's positions is cut there. Default: it is refused."""


class AttributeOutputOptions(AttributionOptions, GenerationOptions, total=False):
    """The options of the attribution of a translation or a caption, all optional, and those of its search.

    num_return_sequences, stop_strings and top_logprobs are refused, as one output is explained, to its end; and so is
    return_scores of False, as its tokens' log-probabilities are told.
    """


class AttributeTranslationOptions(AttributeOutputOptions, total=False):
    """The options of the attribution of a translation, all optional, and those of its search."""

    truncate: bool
    """Whether a text longer than the model's positions is cut there. Default: it is refused."""


Described = tuple[bytes | os.PathLike[str], str]
"""An image, as its bytes or where it lies, and its caption."""


def read_translated(given: object, field: str) -> str | Pair:
    """Return a text, or one and its translation; raises as what reads each of them does."""
    return read_pair(given, field) if isinstance(given, tuple) else read_text(given, field)


def read_captioned(given: object, field: str) -> bytes | tuple[bytes, str]:
    """Return the bytes of an image file, or those and its caption; raises as what reads each of them does."""
    if isinstance(given, tuple) and len(given) == 2:
        return read_image(given[0], f"{field}[0]"), read_text(given[1], f"{field}[1]")
    return read_image(given, field)


def attribute_translation_request(
    inputs: Sequence[str | Pair], options: AttributeTranslationOptions
) -> attribution_pb2.AttributeTranslationRequest:
    """Return the message that asks which parts of `inputs`, texts or texts with translations, made each word likely."""
    options = read_options(options, AttributeTranslationOptions)
    pairs = [one if isinstance(one, tuple) else (one, None) for one in inputs]
    return attribution_pb2.AttributeTranslationRequest(
        model_name=options.get("model", ""),
        model_version=options.get("version", ""),
        inputs=[attribution_pb2.TranslatedText(text=text, target=target) for text, target in pairs],
        generation=generation_message(options),
        attribution=_attribution_message(options),
        truncate=options.get("truncate", False),
        priority=priority_message(options.get("priority")),
    )


def attribute_caption_request(
    inputs: Sequence[bytes | tuple[bytes, str]], options: AttributeOutputOptions
) -> attribution_pb2.AttributeCaptionRequest:
    """Return the message that asks which parts of `inputs`, images or images with captions, made each word likely."""
    options = read_options(options, AttributeOutputOptions)
    pairs = [one if isinstance(one, tuple) else (one, None) for one in inputs]
    return attribution_pb2.AttributeCaptionRequest(
        model_name=options.get("model", ""),
        model_version=options.get("version", ""),
        inputs=[attribution_pb2.CaptionedImage(image=image, caption=caption) for image, caption in pairs],
        generation=generation_message(options),
        attribution=_attribution_message(options),
        priority=priority_message(options.get("priority")),
    )


def attribute_class_request(
    inputs: Sequence[str | bytes | Pair], options: AttributeClassOptions
) -> attribution_pb2.AttributeClassRequest:
    """Return the message that asks which parts of `inputs`, texts, pairs of texts or images, made a class likely."""
    options = read_options(options, AttributeClassOptions)
    return attribution_pb2.AttributeClassRequest(
        model_name=options.get("model", ""),
        model_version=options.get("version", ""),
        inputs=[classification_input(one) for one in inputs],
        label=options.get("label", ""),
        attribution=_attribution_message(options),
        truncate=options.get("truncate", False),
        priority=priority_message(options.get("priority")),
    )


def _attribution_message(options: AttributionOptions) -> attribution_pb2.AttributionOptions:
    method, granularity = attribution_pb2.AttributionMethod.Value, attention_pb2.AttentionGranularity.Value
    return attribution_pb2.AttributionOptions(
        methods=[enum_value(method, "ATTRIBUTION_METHOD_", one, "methods") for one in options.get("methods", ())],
        granularity=enum_value(
            granularity, "ATTENTION_GRANULARITY_", options.get("granularity", "word"), "granularity"
        ),
        occlusion_window=read_count(options.get("occlusion_window"), "occlusion_window"),
        occlusion_stride=read_count(options.get("occlusion_stride"), "occlusion_stride"),
        faithfulness=options.get("faithfulness", False),
        overlay=options.get("overlay", False),
        heads=_head_choice(options["heads"]) if "heads" in options else None,
    )


def _head_choice(choice: HeadChoice) -> attribution_pb2.HeadChoice:
    kind, stack = attention_pb2.AttentionKind.Value, attention_pb2.AttentionStack.Value
    return attribution_pb2.HeadChoice(
        kinds=[enum_value(kind, "ATTENTION_KIND_", one, "heads.kinds") for one in choice.kinds],
        stacks=[enum_value(stack, "ATTENTION_STACK_", one, "heads.stacks") for one in choice.stacks],
        layers=read_indices(choice.layers, "heads.layers"),
    )

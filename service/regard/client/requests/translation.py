"""What a caller may ask of a translation, and the messages that ask for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypedDict

from regard.client.generation import GenerationOptions, generation_message
from regard.client.requests.attention import AttentionOptions, attention_message
from regard.client.requests.inputs import Pair, read_text
from regard.client.requests.interventions import Intervention, intervention_messages
from regard.client.requests.options import read_options
from regard.client.requests.values import Priority, enum_value, priority_message, read_frames
from regard.errors import InvalidInputError
from regard.v1 import glossary_pb2, translation_pb2

Markup = Literal["none", "html", "xliff"]


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
    align_att_frames: int
    """Of a stream: a token that attends most to one of so many last tokens of the source isn't safe to emit."""
    truncate: bool
    """Whether a text longer than the model's positions is cut there. Default: it is refused."""
    alignment: bool
    """Whether to tell which words translate which. Default: no."""
    interventions: Sequence[Intervention]
    """What is changed in the model's attention. Default: nothing."""
    markup: Markup
    """What the texts are marked up with; it's carried over to the translation. Default: none. Not for streams."""
    quality: bool
    """Whether to tell how good each translation seems. Default: no."""
    glossary: Sequence[tuple[str, str]]
    """Terms of the source, and the terms that are expected in their places; a word may end in * for any ending."""
    replace_unknowns: bool
    """Whether to copy words that the model's vocabulary doesn't know. Default: no. Not for streams."""


def translate_request(texts: Sequence[str], options: TranslateOptions) -> translation_pb2.TranslateRequest:
    """Return the message that asks for the translation of `texts`."""
    options = read_options(options, TranslateOptions)
    read_frames(options.get("align_att_frames"), streaming=False)
    return translation_pb2.TranslateRequest(
        model_name=options.get("model", ""),
        model_version=options.get("version", ""),
        texts=texts,
        generation=generation_message(options),
        attention=attention_message(options.get("attention")),
        priority=priority_message(options.get("priority")),
        truncate=options.get("truncate", False),
        interventions=intervention_messages(options.get("interventions", ())),
        alignment=options.get("alignment", False),
        markup=_markup(options.get("markup", "none")),
        quality=options.get("quality", False),
        glossary=_glossary(options.get("glossary", ())),
        replace_unknowns=options.get("replace_unknowns", False),
    )


def stream_translate_request(text: str, options: TranslateOptions) -> translation_pb2.StreamTranslateRequest:
    """Return the message that asks for the translation of `text`, token by token."""
    options = read_options(options, TranslateOptions)
    read_text(text, "text")
    if options.get("markup", "none") != "none":
        raise InvalidInputError(
            "markup: a stream can't place it before the last token; translate without streaming", field="markup"
        )
    if options.get("replace_unknowns"):
        raise InvalidInputError(
            "replace_unknowns: a stream can't tell such a word before the last token; translate without streaming",
            field="replace_unknowns",
        )
    return translation_pb2.StreamTranslateRequest(
        model_name=options.get("model", ""),
        model_version=options.get("version", ""),
        texts=[text],
        generation=generation_message(options),
        attention=attention_message(options.get("attention")),
        priority=priority_message(options.get("priority")),
        truncate=options.get("truncate", False),
        interventions=intervention_messages(options.get("interventions", ())),
        alignment=options.get("alignment", False),
        quality=options.get("quality", False),
        glossary=_glossary(options.get("glossary", ())),
        align_att_frames=read_frames(options.get("align_att_frames")),
    )


class ScoreTranslationOptions(TypedDict, total=False):
    """The options of scoring translations, all optional."""

    model: str
    """The model's name. Default: the server's only translation model."""
    version: str
    """The model's version. Default: the highest."""
    target_language: str
    """The language of the translations, for a model that has a token for each, as the tokenizer spells it."""
    truncate: bool
    """Whether a text longer than the model's positions is cut there. Default: it is refused."""
    priority: Priority
    """Whose turn comes first among the requests that wait for a place. Default: normal."""


def score_translation_request(
    pairs: Sequence[Pair], options: ScoreTranslationOptions
) -> translation_pb2.ScoreTranslationRequest:
    """Return the message that asks how likely the model finds each text's translation."""
    options = read_options(options, ScoreTranslationOptions)
    return translation_pb2.ScoreTranslationRequest(
        model_name=options.get("model", ""),
        model_version=options.get("version", ""),
        pairs=[translation_pb2.TranslationPair(text=text, target=target) for text, target in pairs],
        target_language=options.get("target_language", ""),
        truncate=options.get("truncate", False),
        priority=priority_message(options.get("priority")),
    )


def _glossary(entries: Sequence[tuple[str, str]]) -> list[glossary_pb2.GlossaryEntry]:
    return [glossary_pb2.GlossaryEntry(source=source, target=target) for source, target in entries]


def _markup(word: Markup) -> translation_pb2.Markup.ValueType:
    return enum_value(translation_pb2.Markup.Value, "MARKUP_", word, "markup")

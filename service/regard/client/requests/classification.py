"""What a caller may ask of a classification, of inputs or of their tokens, and the messages that ask for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypedDict

from regard.client.requests.attention import AttentionOptions, attention_message
from regard.client.requests.inputs import Pair
from regard.client.requests.interventions import Intervention, intervention_messages
from regard.client.requests.options import read_options
from regard.client.requests.values import Priority, enum_value, priority_message, read_count
from regard.v1 import classification_pb2

Aggregation = Literal["none", "simple", "first", "average", "max"]


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
    interventions: Sequence[Intervention]
    """What is changed in the model's attention. Default: nothing."""


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
    interventions: Sequence[Intervention]
    """What is changed in the model's attention. Default: nothing."""


def classify_request(
    inputs: Sequence[str | bytes | Pair], options: ClassifyOptions
) -> classification_pb2.ClassifyRequest:
    """Return the message that asks for the classification of `inputs`: texts, pairs of texts, or images."""
    options = read_options(options, ClassifyOptions)
    return classification_pb2.ClassifyRequest(
        model_name=options.get("model", ""),
        model_version=options.get("version", ""),
        inputs=[classification_input(one) for one in inputs],
        top_k=read_count(options.get("top_k"), "top_k"),
        attention=attention_message(options.get("attention")),
        priority=priority_message(options.get("priority")),
        truncate=options.get("truncate", False),
        interventions=intervention_messages(options.get("interventions", ())),
    )


def classification_input(given: str | bytes | Pair) -> classification_pb2.ClassificationInput:
    """Return the message of an input: a text, two texts, or the bytes of an image file."""
    if isinstance(given, bytes):
        return classification_pb2.ClassificationInput(image=given)
    text, pair = given if isinstance(given, tuple) else (given, None)
    return classification_pb2.ClassificationInput(text=text, text_pair=pair)


def classify_tokens_request(
    texts: Sequence[str], options: ClassifyTokensOptions
) -> classification_pb2.ClassifyTokensRequest:
    """Return the message that asks for the classes of the tokens of `texts`."""
    options = read_options(options, ClassifyTokensOptions)
    aggregation = classification_pb2.EntityAggregation.Value
    return classification_pb2.ClassifyTokensRequest(
        model_name=options.get("model", ""),
        model_version=options.get("version", ""),
        texts=texts,
        aggregation=enum_value(aggregation, "ENTITY_AGGREGATION_", options.get("aggregation", "simple"), "aggregation"),
        ignored_labels=options.get("ignored_labels", ()),
        top_k=read_count(options.get("top_k"), "top_k"),
        attention=attention_message(options.get("attention")),
        priority=priority_message(options.get("priority")),
        truncate=options.get("truncate", False),
        interventions=intervention_messages(options.get("interventions", ())),
    )

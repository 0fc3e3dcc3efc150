"""Classifications, of inputs and of their tokens."""

from __future__ import annotations

from collections.abc import Iterable

from regard.answers import Classification, ClassifiedToken, ClassProbability, Entity, ModelVersion, TokenClassification
from regard.client.failures import Failure
from regard.client.results.attention import read_attention
from regard.client.results.outcome import read_failure, read_model_version, read_timing
from regard.v1 import classification_pb2


def read_classifications(
    response: classification_pb2.ClassifyResponse, first_index: int
) -> list[Classification | Failure]:
    """Read the results of a request whose first input is the caller's input `first_index`."""
    model = read_model_version(response.model)
    return [
        read_failure(result.failure, "inputs", first_index)
        if result.HasField("failure")
        else _read_classification(result.classification, model)
        for result in response.results
    ]


def _read_classification(classification: classification_pb2.Classification, model: ModelVersion) -> Classification:
    return Classification(
        classes=_read_classes(classification.classes),
        out_of_scope=classification.out_of_scope,
        source_tokens=classification.source_tokens,
        truncated=classification.truncated,
        attention=read_attention(classification.attention) if classification.HasField("attention") else None,
        timing=read_timing(classification.timing),
        model=model,
    )


def _read_classes(classes: Iterable[classification_pb2.ClassProbability]) -> tuple[ClassProbability, ...]:
    return tuple(ClassProbability(label=one.label, index=one.index, probability=one.probability) for one in classes)


def read_token_classifications(
    response: classification_pb2.ClassifyTokensResponse, first_index: int
) -> list[TokenClassification | Failure]:
    """Read the results of a request whose first text is the caller's text `first_index`."""
    model = read_model_version(response.model)
    return [
        read_failure(result.failure, "texts", first_index)
        if result.HasField("failure")
        else _read_token_classification(result.classification, model)
        for result in response.results
    ]


def _read_token_classification(
    classification: classification_pb2.TokenClassification, model: ModelVersion
) -> TokenClassification:
    return TokenClassification(
        tokens=tuple(
            ClassifiedToken(
                token=one.token,
                token_id=one.token_id,
                index=one.index,
                start=one.start,
                end=one.end,
                classes=_read_classes(one.classes),
            )
            for one in classification.tokens
        ),
        entities=tuple(
            Entity(label=one.label, score=one.score, text=one.text, start=one.start, end=one.end)
            for one in classification.entities
        ),
        source_tokens=classification.source_tokens,
        truncated=classification.truncated,
        attention=read_attention(classification.attention) if classification.HasField("attention") else None,
        timing=read_timing(classification.timing),
        model=model,
    )

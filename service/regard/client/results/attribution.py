"""Attributions."""

from __future__ import annotations

import numpy as np

from regard.answers import (
    Attribution,
    Attributions,
    ClassAttribution,
    ClassProbability,
    Faithfulness,
    HeadAttribution,
    HeadWeights,
    ModelVersion,
    OutputAttribution,
)
from regard.client.failures import Failure
from regard.client.results.attention import read_grid, read_segment
from regard.client.results.generation import read_tokens
from regard.client.results.names import read_name
from regard.client.results.outcome import read_failure, read_model_version
from regard.v1 import attention_pb2, attribution_pb2, classification_pb2


def read_class_attributions(
    response: attribution_pb2.AttributeClassResponse, first_index: int
) -> list[ClassAttribution | Failure]:
    """Read the results of a request whose first input is the caller's input `first_index`."""
    model = read_model_version(response.model)
    return [
        read_failure(result.failure, "inputs", first_index)
        if result.HasField("failure")
        else _read_class_attribution(result.attribution, model)
        for result in response.results
    ]


def read_output_attributions(
    response: attribution_pb2.AttributeTranslationResponse | attribution_pb2.AttributeCaptionResponse,
    first_index: int,
) -> list[OutputAttribution | Failure]:
    """Read the results of a request whose first input is the caller's input `first_index`."""
    model = read_model_version(response.model)
    return [
        read_failure(result.failure, "inputs", first_index)
        if result.HasField("failure")
        else _read_output_attribution(result.attribution, model)
        for result in response.results
    ]


def _read_output_attribution(sent: attribution_pb2.OutputAttribution, model: ModelVersion) -> OutputAttribution:
    return OutputAttribution(
        text=sent.text,
        tokens=read_tokens(sent.tokens),
        log_probability=sent.log_probability,
        targets=tuple(map(read_segment, sent.target.segments)),
        attributions=_read_attributions(sent.attributions),
        model=model,
    )


def _read_class_attribution(sent: attribution_pb2.ClassAttribution, model: ModelVersion) -> ClassAttribution:
    return ClassAttribution(
        explained=_read_class(sent.explained),
        likeliest=_read_class(sent.likeliest),
        attributions=_read_attributions(sent.attributions),
        model=model,
    )


def _read_class(sent: classification_pb2.ClassProbability) -> ClassProbability:
    return ClassProbability(label=sent.label, index=sent.index, probability=sent.probability)


def _read_attributions(sent: attribution_pb2.Attributions) -> Attributions:
    return Attributions(
        parts=tuple(map(read_segment, sent.source.segments)),
        grid=read_grid(sent.source),
        methods=tuple(map(_read_attribution, sent.methods)),
        random=_read_faithfulness(sent.random) if sent.HasField("random") else None,
        cover=sent.cover,
        runs=sent.runs,
        package_sha256=sent.package_sha256,
        precision=sent.precision,
        heads=_read_heads(sent.heads) if sent.HasField("heads") else None,
    )


def _read_heads(sent: attribution_pb2.HeadAttribution) -> HeadAttribution:
    return HeadAttribution(
        maps=tuple(map(_read_head_weights, sent.maps)),
        faithfulness=_read_faithfulness(sent.faithfulness) if sent.HasField("faithfulness") else None,
        random=_read_faithfulness(sent.random) if sent.HasField("random") else None,
    )


def _read_head_weights(sent: attribution_pb2.HeadWeights) -> HeadWeights:
    shape = (len(sent.layers), sent.heads)
    return HeadWeights(
        kind=read_name(attention_pb2.AttentionKind.Name, sent.kind, "ATTENTION_KIND_"),
        stack=read_name(attention_pb2.AttentionStack.Name, sent.stack, "ATTENTION_STACK_"),
        layers=tuple(sent.layers),
        weights=np.array(sent.weights, np.float64).reshape(shape),
        target_weights=np.array(sent.target_weights).reshape(-1, *shape) if sent.target_weights else None,
    )


def _read_attribution(sent: attribution_pb2.Attribution) -> Attribution:
    return Attribution(
        method=read_name(attribution_pb2.AttributionMethod.Name, sent.method, "ATTRIBUTION_METHOD_"),
        weights=np.array(sent.weights, np.float64),
        faithfulness=_read_faithfulness(sent.faithfulness) if sent.HasField("faithfulness") else None,
        overlay=sent.overlay or None,
        target_weights=np.array(sent.target_weights).reshape(-1, len(sent.weights)) if sent.target_weights else None,
    )


def _read_faithfulness(sent: attribution_pb2.Faithfulness) -> Faithfulness:
    return Faithfulness(
        deletion_auc=sent.deletion_auc,
        insertion_auc=sent.insertion_auc,
        comprehensiveness=sent.comprehensiveness,
        sufficiency=sent.sufficiency,
    )

"""The demonstration's findings, for programs: what `summary.json` holds, and what counts as wrong."""

from __future__ import annotations

import platform
from typing import Any

from regard import __version__
from regard.cli.demo.inputs import Inputs
from regard.cli.demo.measures import Answers, batch_sizes, shapes
from regard.cli.demo.server import ServerProcess
from regard.client import Classification, Translation

ROW_SUM_TOLERANCE = 1e-4


def summarize(
    inputs: Inputs,
    translations: Answers[Translation],
    classifications: Answers[Classification],
    server: ServerProcess,
) -> dict[str, Any]:
    """Return the findings. It asks the running server for its metrics."""
    metrics = server.metrics()
    return {
        "name": "demo",
        "regard": __version__,
        "machine": platform.platform(),
        "row_sum_error": max(translations.row_sum_error, classifications.row_sum_error),
        "server_has_torch": server.has_torch,
        "tasks": {
            "translation": {
                "model": inputs.translator,
                "examples": [
                    {
                        "input": sentence.source,
                        "output": answer.text,
                        "references": sentence.references,
                        "equals_a_reference": answer.text in sentence.references,
                    }
                    for sentence, answer in zip(inputs.sentences, translations.plain, strict=True)
                ],
                **_speeds(translations, sum(answer.target_tokens for answer in translations.plain)),
                **_attention(translations),
                "batch_sizes": batch_sizes(metrics, inputs.translator),
            },
            "classification": {
                "model": inputs.classifier,
                "examples": [
                    {
                        "input": utterance.text,
                        "output": answer.classes[0].label,
                        "probability": answer.classes[0].probability,
                        "out_of_scope": answer.out_of_scope,
                        "references": [utterance.label],
                        "equals_a_reference": answer.classes[0].label == utterance.label,
                    }
                    for utterance, answer in zip(inputs.utterances, classifications.plain, strict=True)
                ],
                **_speeds(classifications, sum(answer.source_tokens for answer in classifications.plain)),
                **_attention(classifications),
                "batch_sizes": batch_sizes(metrics, inputs.classifier),
            },
        },
    }


def faults(
    summary: dict[str, Any], translations: Answers[Translation], classifications: Answers[Classification]
) -> list[str]:
    """Return what must not be, each in a sentence; nothing if all is well."""
    found = []
    if not summary["row_sum_error"] <= ROW_SUM_TOLERANCE:
        found.append(f"a row of attention weights differs from 1 by {summary['row_sum_error']:.1e}")
    if [answer.text for answer in translations.plain] != [answer.text for answer in translations.explained]:
        found.append("a translation changed when its attention was asked for")
    if [_likeliest(answer) for answer in classifications.plain] != [
        _likeliest(answer) for answer in classifications.explained
    ]:
        found.append("a classification changed when its attention was asked for")
    if summary["server_has_torch"]:
        found.append("the server has PyTorch loaded")
    return found


def _likeliest(answer: Classification) -> str:
    return answer.classes[0].label


def _speeds(answers: Answers[Any], tokens: int) -> dict[str, Any]:
    return {
        "tokens": tokens,
        "tokens_per_s": round(tokens / answers.plain_s, 1),
        "tokens_per_s_with_all_attention": round(tokens / answers.explained_s, 1),
    }


def _attention(answers: Answers[Any]) -> dict[str, Any]:
    return {
        "attention_shapes": [shapes(attention) for attention in answers.attention],
        "row_sum_error": answers.row_sum_error,
    }

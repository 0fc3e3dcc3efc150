"""The demonstration's findings, for programs: what `summary.json` holds, and what counts as wrong."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Any

from regard import __version__
from regard.cli.demo.inputs import Inputs
from regard.cli.demo.measures import AllAnswers, Answers, batch_sizes, shapes
from regard.cli.demo.server import ServerProcess
from regard.client import Classification

ROW_SUM_TOLERANCE = 1e-4


def summarize(inputs: Inputs, answers: AllAnswers, server: ServerProcess) -> dict[str, Any]:
    """Return the findings. It asks the running server for its metrics."""
    metrics = server.metrics()
    translations, captions, classifications = answers.translations, answers.captions, answers.classifications
    return {
        "name": "demo",
        "regard": __version__,
        "machine": platform.platform(),
        "row_sum_error": answers.row_sum_error,
        "server_has_torch": server.has_torch,
        "tasks": {
            "translation": {
                "model": inputs.translator,
                "examples": [
                    _example(sentence.source, answer.text, sentence.references)
                    for sentence, answer in zip(inputs.sentences, translations.plain, strict=True)
                ],
                **_speeds(translations, sum(answer.target_tokens for answer in translations.plain)),
                **_attention(translations),
                "batch_sizes": batch_sizes(metrics, inputs.translator),
            },
            "captioning": {
                "model": inputs.captioner,
                "examples": [
                    _example(scene.file, answer.text, scene.references)
                    for scene, answer in zip(inputs.scenes, captions.plain, strict=True)
                ],
                **_speeds(captions, sum(answer.target_tokens for answer in captions.plain)),
                **_attention(captions),
                "batch_sizes": batch_sizes(metrics, inputs.captioner),
            },
            "classification": {
                "model": inputs.classifier,
                "examples": [
                    {
                        **_example(utterance.text, _likeliest(answer), (utterance.label,)),
                        "probability": answer.classes[0].probability,
                        "out_of_scope": answer.out_of_scope,
                    }
                    for utterance, answer in zip(inputs.utterances, classifications.plain, strict=True)
                ],
                **_speeds(classifications, sum(answer.source_tokens for answer in classifications.plain)),
                **_attention(classifications),
                "batch_sizes": batch_sizes(metrics, inputs.classifier),
            },
        },
    }


def faults(summary: dict[str, Any], answers: AllAnswers) -> list[str]:
    """Return what must not be, each in a sentence; nothing if all is well."""
    found = []
    if not summary["row_sum_error"] <= ROW_SUM_TOLERANCE:
        found.append(f"a row of attention weights differs from 1 by {summary['row_sum_error']:.1e}")
    translations, captions, classifications = answers.translations, answers.captions, answers.classifications
    if [answer.text for answer in translations.plain] != [answer.text for answer in translations.explained]:
        found.append("a translation changed when its attention was asked for")
    if [answer.text for answer in captions.plain] != [answer.text for answer in captions.explained]:
        found.append("a caption changed when its attention was asked for")
    if list(map(_likeliest, classifications.plain)) != list(map(_likeliest, classifications.explained)):
        found.append("a classification changed when its attention was asked for")
    if summary["server_has_torch"]:
        found.append("the server has PyTorch loaded")
    return found


def _example(given: str, output: str, references: Sequence[str]) -> dict[str, Any]:
    return {
        "input": given,
        "output": output,
        "references": list(references),
        "equals_a_reference": output in references,
    }


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

"""An intent classifier's quality: accuracy in scope, recall and precision out of scope."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

import clinc150
from evaluation.batches import batches
from evaluation.measures import Evaluation, Figure, Row
from evaluation.serving import whole
from regard.client import Classification, Client, Model

BAR = 90.0
FloatArray = npt.NDArray[np.float32]


def evaluate(checkpoint: Path, data: Path, packages: Mapping[str, Model], client: Client) -> Evaluation:
    """Judge the likeliest class of every test utterance, and the same with the out-of-scope threshold."""
    utterances = clinc150.load(data).test
    texts = [utterance.text for utterance in utterances]
    config = AutoConfig.from_pretrained(checkpoint, local_files_only=True)
    expected = np.array([config.label2id[utterance.intent] for utterance in utterances])
    own = probabilities_of_checkpoint(checkpoint, texts)
    served = {precision: probabilities_of_package(client, package, texts) for precision, package in packages.items()}

    figures = []
    for answer, threshold in (("likeliest class", 0.0), ("with threshold", config.out_of_scope_threshold)):
        out_of_scope = config.label2id[clinc150.OUT_OF_SCOPE]
        judged = {
            who: asdict(clinc150.judge(rows, expected, out_of_scope=out_of_scope, threshold=threshold))
            for who, rows in {"checkpoint": own, **served}.items()
        }
        checkpoint_quality = judged.pop("checkpoint")
        for measure, value in checkpoint_quality.items():
            in_scope = measure == "in_scope_accuracy"
            figures.append(
                Figure(
                    f"{measure.replace('_', ' ')}, {answer}",
                    "%",
                    100 * value,
                    {precision: 100 * quality[measure] for precision, quality in judged.items()},
                    bar=BAR if in_scope else None,
                    guarded=in_scope,
                )
            )
    context = [Row("test utterances", len(utterances), ""), Row("threshold", config.out_of_scope_threshold, "")]
    for precision, rows in served.items():
        alike = np.mean(rows.argmax(axis=1) == own.argmax(axis=1))
        context.append(Row(f"likeliest classes alike, {precision}", 100 * float(alike), "%"))
        context.append(Row(f"largest difference of a probability, {precision}", float(np.abs(rows - own).max()), ""))
    return Evaluation(figures, context)


@torch.inference_mode()
def probabilities_of_checkpoint(checkpoint: Path, texts: Sequence[str]) -> FloatArray:
    """Return the class probabilities [texts, classes] that Transformers computes."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
    model = AutoModelForSequenceClassification.from_pretrained(
        checkpoint, local_files_only=True, dtype=torch.float32
    ).eval()
    encoded = tokenizer(list(texts), truncation=True)["input_ids"]
    result = np.empty((len(texts), model.config.num_labels), np.float32)
    for batch in batches(encoded, 256):
        inputs = tokenizer.pad({"input_ids": [encoded[index] for index in batch]}, return_tensors="pt")
        result[batch] = model(**inputs).logits.softmax(-1).numpy()
    return result


def probabilities_of_package(client: Client, package: Model, texts: Sequence[str]) -> FloatArray:
    """Return the class probabilities [texts, classes] that the service answers."""
    classes = len(package.labels)
    answers = client.classify_many(texts, model=package.name, version=package.version, top_k=classes, truncate=True)
    whole(answers)
    result = np.empty((len(texts), classes), np.float32)
    for row, answer in enumerate(answers):
        if isinstance(answer, Classification):
            for one in answer.classes:
                result[row, one.index] = one.probability
    return result

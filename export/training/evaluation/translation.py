"""A translator's quality: detokenised BLEU and chrF, with every reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

import numpy as np
import sacrebleu
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

import tatoeba
from evaluation.batches import batches
from evaluation.measures import Evaluation, Figure, Row
from evaluation.serving import whole
from regard.client import Client, Model, Translation

BAR = 42.0
SEARCHES = {"greedy": 1, "beam 4": 4}


def evaluate(checkpoint: Path, data: Path, packages: Mapping[str, Model], client: Client) -> Evaluation:
    """Score greedy search and beams of 4 on the held-out test sentences."""
    examples = tatoeba.load(data).test
    sources = [example.source for example in examples]
    references = [list(stream) for stream in zip_longest(*(example.references for example in examples))]
    metrics = {"BLEU": sacrebleu.BLEU(), "chrF": sacrebleu.CHRF()}
    hypotheses = {search: generate(checkpoint, sources, beams) for search, beams in SEARCHES.items()}
    served = {
        search: {precision: translate(client, package, sources, beams) for precision, package in packages.items()}
        for search, beams in SEARCHES.items()
    }

    figures = [
        Figure(
            f"{metric}, {search}",
            metric,
            scorer.corpus_score(texts, references).score,
            {one: scorer.corpus_score(found, references).score for one, found in served[search].items()},
            bar=BAR if metric == "BLEU" else None,
            guarded=metric == "BLEU",
        )
        for search, texts in hypotheses.items()
        for metric, scorer in metrics.items()
    ]
    context = [Row("test sentences", len(examples), "")]
    for search, texts in hypotheses.items():
        for precision, found in served[search].items():
            alike = np.mean([ours == theirs for ours, theirs in zip(found, texts, strict=True)])
            context.append(Row(f"translations alike, {search}, {precision}", 100 * float(alike), "%"))
    return Evaluation(figures, context, {metric: str(scorer.get_signature()) for metric, scorer in metrics.items()})


@torch.inference_mode()
def generate(checkpoint: Path, sources: Sequence[str], beams: int) -> list[str]:
    """Translate `sources` with the checkpoint's `generate()`."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
    model = AutoModelForSeq2SeqLM.from_pretrained(checkpoint, local_files_only=True, dtype=torch.float32).eval()
    encoded = tokenizer(list(sources), truncation=True)["input_ids"]
    translations = [""] * len(sources)
    for batch in batches(encoded, 64):
        inputs = tokenizer.pad({"input_ids": [encoded[index] for index in batch]}, return_tensors="pt")
        output = model.generate(**inputs, num_beams=beams, do_sample=False)
        for index, text in zip(batch, tokenizer.batch_decode(output, skip_special_tokens=True), strict=True):
            translations[index] = text
    return translations


def translate(client: Client, package: Model, sources: Sequence[str], beams: int) -> list[str]:
    """Translate `sources` with the package, through the service."""
    answers = client.translate_many(
        sources, model=package.name, version=package.version, truncate=True, num_beams=beams
    )
    whole(answers)
    return [answer.text for answer in answers if isinstance(answer, Translation)]

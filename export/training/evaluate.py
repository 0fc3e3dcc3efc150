"""Measure checkpoints with Transformers, and the packages exported from them with Regard's engine, side by side.

    python export/training/evaluate.py --data fra-eng.zip data_full.json [--models models/] [CHECKPOINT ...]

A checkpoint's class says which task it does: a translator is measured on the held-out test
sentences of Tatoeba (fra-eng.zip), a classifier on the test utterances of CLINC150
(data_full.json). Each prints a table and writes `build/results/evaluate-NAME.json`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import sacrebleu
import torch
import transformers
from rich.console import Console
from rich.table import Table
from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification, AutoTokenizer

import clinc150
import tatoeba
from regard.config import EngineSettings
from regard.engine.observer import SilentObserver
from regard.engine.request import ClassifyRequest, GenerateRequest
from regard.manifest import Package, find_packages, load_package
from regard.text.codec import TextCodec
from regard.worker import Worker

CHECKPOINTS = Path("export/checkpoints")
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Figure:
    """One measure of quality, of the checkpoint and of the package; higher is better."""

    name: str
    unit: str
    checkpoint: float
    package: float | None = None
    bar: float | None = None


@dataclass(frozen=True)
class Row:
    """A line of the results' file."""

    name: str
    value: float
    unit: str
    bar: float | None = None
    holds: bool | None = None


@dataclass(frozen=True)
class Evaluation:
    """What was measured; `context` has the data's size and how alike the two answer, `signatures` sacreBLEU's own."""

    figures: list[Figure]
    context: list[Row]
    signatures: dict[str, str] = field(default_factory=dict)

    def rows(self, tolerance: float) -> Iterator[Row]:
        """Yield every value, and by how much each of the package's differs from the checkpoint's."""
        for figure in self.figures:
            for who, value in (("checkpoint", figure.checkpoint), ("package", figure.package)):
                if value is not None:
                    holds = None if figure.bar is None else value >= figure.bar
                    yield Row(f"{figure.name}, {who}", value, figure.unit, figure.bar, holds)
            if figure.package is not None:
                difference = abs(figure.package - figure.checkpoint)
                yield Row(f"{figure.name}, difference", difference, figure.unit, tolerance, difference <= tolerance)
        yield from self.context


def run_package(package: Package, requests: Sequence[GenerateRequest | ClassifyRequest]) -> list[Any]:
    """Return the engine's results for `requests`, all submitted at once."""
    worker = Worker(package, EngineSettings(max_queue=len(requests)), SilentObserver())
    worker.start()

    async def run_all() -> list[Any]:
        return await asyncio.gather(*map(worker.run, requests))

    try:
        return asyncio.run(run_all())
    finally:
        worker.stop()


def batches(rows: Sequence[list[int]], size: int) -> Iterator[list[int]]:
    """Yield the indices of token `rows` in batches of `size`, the longest rows first."""
    order = sorted(range(len(rows)), key=lambda index: -len(rows[index]))
    yield from (order[start : start + size] for start in range(0, len(order), size))


def evaluate_translation(checkpoint: Path, data: Path, package: Package | None) -> Evaluation:
    """Score greedy search and, of the checkpoint, beams of 4, by detokenised BLEU and chrF with every reference."""
    examples = tatoeba.load(data).test
    sources = [example.source for example in examples]
    references = [list(stream) for stream in zip_longest(*(example.references for example in examples))]
    metrics = {"BLEU": sacrebleu.BLEU(), "chrF": sacrebleu.CHRF()}
    hypotheses = {"greedy": generate(checkpoint, sources, beams=1), "beam 4": generate(checkpoint, sources, beams=4)}
    exported = {} if package is None else {"greedy": translate(package, sources)}

    figures = [
        Figure(
            f"{metric}, {search}",
            metric,
            scorer.corpus_score(texts, references).score,
            scorer.corpus_score(exported[search], references).score if search in exported else None,
            bar=42.0 if metric == "BLEU" else None,
        )
        for search, texts in hypotheses.items()
        for metric, scorer in metrics.items()
    ]
    context = [Row("test sentences", len(examples), "")]
    for search, texts in exported.items():
        alike = np.mean([ours == theirs for ours, theirs in zip(texts, hypotheses[search], strict=True)])
        context.append(Row(f"translations alike, {search}", 100 * float(alike), "%"))
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


def translate(package: Package, sources: Sequence[str]) -> list[str]:
    """Translate `sources` with the package, greedily."""
    codec, generation = TextCodec(package), package.manifest.generation
    if generation is None:
        raise SystemExit(f"{package.directory} is no translator")
    requests = [
        GenerateRequest(codec.encode(source, truncate=True, field="source").token_ids, generation.max_target_tokens)
        for source in sources
    ]
    return [codec.decode(result.token_ids) for result in run_package(package, requests)]


def evaluate_intents(checkpoint: Path, data: Path, package: Package | None) -> Evaluation:
    """Judge the likeliest class of every test utterance, and the same with the out-of-scope threshold."""
    utterances = clinc150.load(data).test
    texts = [utterance.text for utterance in utterances]
    config = AutoConfig.from_pretrained(checkpoint, local_files_only=True)
    expected = np.array([config.label2id[utterance.intent] for utterance in utterances])
    probabilities = [probabilities_of_checkpoint(checkpoint, texts)]
    thresholds = [config.out_of_scope_threshold]
    if package is not None:
        if package.manifest.classification is None:
            raise SystemExit(f"{package.directory} is no classifier")
        probabilities.append(probabilities_of_package(package, texts))
        thresholds.append(package.manifest.classification.out_of_scope_threshold)

    figures = []
    for answer in ("likeliest class", "with threshold"):
        qualities = [
            clinc150.judge(
                rows,
                expected,
                out_of_scope=config.label2id[clinc150.OUT_OF_SCOPE],
                threshold=threshold if answer == "with threshold" else 0.0,
            )
            for rows, threshold in zip(probabilities, thresholds, strict=True)
        ]
        for measure in asdict(qualities[0]):
            first, *others = [100 * getattr(quality, measure) for quality in qualities]
            bar = 90.0 if (answer, measure) == ("likeliest class", "in_scope_accuracy") else None
            name = f"{measure.replace('_', ' ')}, {answer}"
            figures.append(Figure(name, "%", first, others[0] if others else None, bar))
    context = [Row("test utterances", len(utterances), ""), Row("out-of-scope threshold", thresholds[0], "")]
    for actual in probabilities[1:]:
        alike = np.mean(actual.argmax(axis=1) == probabilities[0].argmax(axis=1))
        context.append(Row("likeliest classes alike", 100 * float(alike), "%"))
        context.append(Row("largest difference of a probability", float(np.abs(actual - probabilities[0]).max()), ""))
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


def probabilities_of_package(package: Package, texts: Sequence[str]) -> FloatArray:
    """Return the class probabilities [texts, classes] that the engine computes."""
    codec = TextCodec(package)
    requests = [ClassifyRequest(codec.encode(text, truncate=True, field="text").token_ids) for text in texts]
    logits = np.stack([result.logits for result in run_package(package, requests)])
    return torch.from_numpy(logits).softmax(-1).numpy()


def show(name: str, evaluation: Evaluation, console: Console) -> None:
    """Print the checkpoint's and the package's figures side by side, then how alike they are."""
    table = Table("measure", title=name)
    for heading in ("checkpoint", "package", "bar"):
        table.add_column(heading, justify="right")
    for figure in evaluation.figures:
        values = (figure.checkpoint, figure.package, figure.bar)
        table.add_row(f"{figure.name} ({figure.unit})", *("" if value is None else f"{value:.2f}" for value in values))
    console.print(table)
    for row in evaluation.context:
        console.print(f"{row.name}: {row.value:.6g} {row.unit}")
    for metric, signature in evaluation.signatures.items():
        console.print(f"{metric}: {signature}")


def write(name: str, rows: Sequence[Row], signatures: dict[str, str], directory: Path) -> None:
    """Write `rows` to `directory`/`name`.json, with the machine and the versions."""
    versions = {module.__name__: module.__version__ for module in (torch, transformers, onnxruntime, sacrebleu)}
    content = {
        "name": name,
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "versions": versions | signatures,
        "rows": [asdict(row) for row in rows],
    }
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")


def latest_package(models: Path, name: str) -> Package | None:
    """Return the highest version of a model's package, or None if it has none."""
    found = [path for path in find_packages(models) if path.parent.name == name]
    return load_package(max(found, key=lambda path: int(path.name))) if found else None


def main() -> None:
    """Evaluate every checkpoint whose corpus is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="*", type=Path, help="default: those of export/checkpoints")
    parser.add_argument("--data", nargs="+", type=Path, required=True, help="fra-eng.zip, data_full.json, or both")
    parser.add_argument("--models", type=Path, default=Path("models"), help="where their packages are")
    parser.add_argument("--results", type=Path, default=Path("build/results"), help="where the figures are written")
    parser.add_argument("--tolerance", type=float, default=0.1, help="points by which a package may differ")
    options = parser.parse_args()

    transformers.utils.logging.disable_progress_bar()
    console = Console()
    corpora = {file.suffix: file for file in options.data}
    for checkpoint in options.checkpoints or sorted(path.parent for path in CHECKPOINTS.glob("*/config.json")):
        architecture = AutoConfig.from_pretrained(checkpoint, local_files_only=True).architectures[0]
        classifies = architecture.endswith("ForSequenceClassification")
        data = corpora.get(".json" if classifies else ".zip")
        name = checkpoint.resolve().name
        if data is None:
            console.print(f"{name}: left out, --data has no {'data_full.json' if classifies else 'fra-eng.zip'}")
            continue
        package = latest_package(options.models, name)
        evaluation = (evaluate_intents if classifies else evaluate_translation)(checkpoint, data, package)
        rows = list(evaluation.rows(options.tolerance))
        show(name, evaluation, console)
        if package is None:
            console.print(f"{options.models} has no package of {name}")
        elif apart := [row.name for row in rows if row.bar == options.tolerance and not row.holds]:
            console.print(
                f"package and checkpoint disagree by more than {options.tolerance} points: {'; '.join(apart)}"
            )
        else:
            console.print(f"package and checkpoint agree within {options.tolerance} points")
        write(f"evaluate-{name}", rows, evaluation.signatures, options.results)


if __name__ == "__main__":
    main()

"""Measure how faithful each way to attribute is to the demonstration models, and whether it beats a random order.

    python export/training/evaluate_attribution.py --models models/

Held-out inputs are asked of a server that is started for it: utterances to the classifier, sentences to the
translator, both one a line of the files given, and scenes that are drawn to the captioner. For each task and method
it prints the means of the four measures of faithfulness (`regard.attention.faithfulness` has their definitions and
sources), and on how many inputs the method's insertion less deletion AUC is above that of random orders of the same
input, the mean of three. Writes `build/results/attribution.json`.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from evaluation.serving import served, whole
from load_tests.peers.results import Figure, write
from regard.client import Attributions, ClassAttribution, Client, Faithfulness, OutputAttribution
from scene_judge import held_out

DATA = Path("tests/parity/data")
MEASURES = {
    "deletion_auc": "deletion AUC ↓",
    "insertion_auc": "insertion AUC ↑",
    "comprehensiveness": "comprehensiveness ↑",
    "sufficiency": "sufficiency ↓",
}
RANDOM = "random order"
Measured = Mapping[str, Sequence[Faithfulness]]
"""For each method, and for random orders, the faithfulness on every input."""


def main() -> None:
    """Measure all three tasks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=Path("models"), help="where the demonstration packages are")
    parser.add_argument("--utterances", type=Path, default=DATA / "utterances.en.txt", help="what is classified")
    parser.add_argument("--sentences", type=Path, default=DATA / "sentences.en.txt", help="what is translated")
    parser.add_argument("--inputs", type=int, default=100, metavar="N", help="how many of each; default: 100")
    parser.add_argument("--scenes", type=int, default=25, metavar="N", help="how many scenes; default: 25")
    options = parser.parse_args()

    console, figures = Console(), list[Figure]()
    with served(options.models) as client:
        for task, measured in {
            "classification": classified(client, lines(options.utterances, options.inputs)),
            "translation": translated(client, lines(options.sentences, options.inputs)),
            "captioning": captioned(client, options.scenes),
        }.items():
            console.print(table_of(task, measured))
            figures += figures_of(task, measured)
    write("attribution", figures)


def lines(file: Path, count: int) -> list[str]:
    """Return the first lines of a file."""
    return file.read_text("utf-8").splitlines()[:count]


def classified(client: Client, texts: Sequence[str]) -> Measured:
    """Measure the likeliest class of every text."""
    return collected(client.attribute_class_many(texts, model="demo-intent", faithfulness=True))


def translated(client: Client, texts: Sequence[str]) -> Measured:
    """Measure the model's own translation of every text."""
    return collected(client.attribute_translation_many(texts, model="demo-en-fr", faithfulness=True))


def captioned(client: Client, count: int) -> Measured:
    """Measure the model's own caption of every scene."""
    images = []
    for scene in held_out(count):
        written = io.BytesIO()
        scene.image.save(written, "PNG")
        images.append(written.getvalue())
    return collected(client.attribute_caption_many(images, model="demo-scenes", faithfulness=True))


def collected(answers: Sequence[object]) -> Measured:
    """Return what was measured on every input; ends the evaluation if one failed."""
    whole(answers)
    told = [one.attributions for one in answers if isinstance(one, ClassAttribution | OutputAttribution)]
    methods = [one.method for one in told[0].methods]
    return {method: [_measured(one, method) for one in told] for method in (*methods, RANDOM)}


def _measured(told: Attributions, method: str) -> Faithfulness:
    found = told.random if method == RANDOM else told[method].faithfulness
    assert found is not None
    return found


def means_of(measured: Sequence[Faithfulness]) -> dict[str, float]:
    """Return the mean of each measure over the inputs."""
    return {one.name: float(np.mean([getattr(each, one.name) for each in measured])) for one in fields(Faithfulness)}


def wins_of(method: Sequence[Faithfulness], chance: Sequence[Faithfulness]) -> float:
    """Return on how many inputs, in percent, a method parts insertion from deletion further than random orders do."""
    better = [_gap(own) > _gap(other) for own, other in zip(method, chance, strict=True)]
    return 100 * float(np.mean(better))


def _gap(measured: Faithfulness) -> float:
    return measured.insertion_auc - measured.deletion_auc


def table_of(task: str, measured: Measured) -> Table:
    """Return the means of every method, and how often it beats a random order."""
    table = Table("", *MEASURES.values(), "beats random", title=f"{task}, {len(measured[RANDOM])} inputs")
    for method, each in measured.items():
        means = means_of(each)
        wins = "" if method == RANDOM else f"{wins_of(each, measured[RANDOM]):.0f} %"
        table.add_row(method.replace("_", " "), *(f"{means[name]:.3f}" for name in MEASURES), wins)
    return table


def figures_of(task: str, measured: Measured) -> list[Figure]:
    """Return the same as rows of results."""
    figures = []
    for method, each in measured.items():
        name = f"{task}, {method.replace('_', ' ')}"
        for measure, mean in means_of(each).items():
            figures.append(Figure(f"{name}, {measure.replace('_', ' ')}", "of the score", [mean]))
        if method != RANDOM:
            figures.append(
                Figure(f"{name}, inputs on which it beats random orders", "%", [wins_of(each, measured[RANDOM])])
            )
    return figures


if __name__ == "__main__":
    main()

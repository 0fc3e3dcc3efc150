"""Measure whether an answer depends on the requests beside it, on the threads, and on the precision.

    python export/training/evaluate_determinism.py --data fra-eng.zip data_full.json --models build/evaluated

Held-out sentences of Tatoeba (fra-eng.zip) and utterances of CLINC150 (data_full.json) are asked of servers
that are started for it, of demo-en-fr and demo-intent and of their int8 kin: one at a time, all at once, both
again, and with other threads. In fp32 the rows of a running batch are computed apart from each other; in int8
the activations of the whole batch are rounded with one scale, so that neighbours move each other's figures,
unless each token has a scale of its own.
Where outputs part, the margin tells how sure the reference was: by how much its token's log-probability is
above the next one's. Prints tables and writes `build/results/determinism.json`; the rows of a model whose data
isn't given stay as they are there.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import sacrebleu
from rich.console import Console
from rich.table import Column, Table

import clinc150
import tatoeba
from evaluation.divergence import Divergence, Movement, Output
from evaluation.intents import FloatArray, probabilities_of_package
from evaluation.serving import packages_of, serving, whole
from load_tests.peers.results import Figure, write
from regard.client import Client, Model, Translation

TRANSLATIONS = {
    "greedy, alone again": "greedy, alone",
    "greedy, alone, on one thread": "greedy, alone",
    "greedy, alone, on two instances": "greedy, alone",
    "greedy, beside others": "greedy, alone",
    "greedy, beside others again": "greedy, beside others",
    "beams of 4, beside others": "beams of 4, alone",
    "sampling with a seed, beside others": "sampling with a seed, alone",
}
"""The ways to ask for translations, each with the one whose answers its own are held to."""
CLASSIFICATIONS = {"alone again": "alone", "beside others": "alone", "beside others again": "beside others"}
"""The same of classifications."""
ELSEWHERE = {"greedy, alone, on one thread": (1, 1), "greedy, alone, on two instances": (2, 1)}
"""The ways whose server is told how many instances to have, and how many threads in each."""
SAME_BITS = ("alone again", "on one thread", "on two instances")
"""How the ways end whose answers are to be those of their references to the bit."""
SEARCHES: dict[str, dict[str, Any]] = {
    "greedy": {"num_beams": 1, "top_logprobs": 2},
    "beams of 4": {"num_beams": 4, "token_logprobs": True},
    "sampling with a seed": {"num_beams": 1, "do_sample": True, "seed": 7, "token_logprobs": True},
}
EDGES = (0.01, 0.1, 0.5, 1.0, 2.0)
"""Where margins are parted, in natural logarithms."""
TIMEOUT_S = 3600
MEASURES: dict[str, tuple[str, Callable[[Divergence], float]]] = {
    "outputs that differ": ("%", lambda found: 100 * found.parted),
    "outputs of which a bit differs": ("%", lambda found: 100 * found.changed),
    "tokens that flip": ("%", lambda found: 100 * found.flipped),
    "tokens before the first flip": ("%", lambda found: 100 * found.before),
    "median difference of log-probabilities": ("", lambda found: float(np.median(found.differences))),
    "largest difference of log-probabilities": ("", lambda found: float(found.differences.max())),
}
"""What is told of outputs beside others: the unit of each measure, and what it is."""
MOVEMENTS: dict[str, tuple[str, Callable[[Movement], float]]] = {
    "classes that differ": ("%", lambda found: 100 * found.parted),
    "answers of which a bit differs": ("%", lambda found: 100 * found.changed),
    "median of the largest differences": ("", lambda found: float(np.median(found.furthest))),
    "largest difference of a probability": ("", lambda found: float(found.furthest.max())),
}
"""The same of probabilities of classes."""


@dataclass(frozen=True)
class Callers:
    """Two ways to ask one server: a request at a time, and as many as make its batches full."""

    alone: Client
    together: Client


@contextmanager
def callers(models: Path, *settings: str) -> Iterator[Callers]:
    """Yield the callers of a server of its own, which has more `settings`."""
    with (
        serving(models, *settings) as address,
        Client(address, timeout_s=TIMEOUT_S, inputs_per_request=1, requests_in_flight=1) as alone,
        Client(address, timeout_s=TIMEOUT_S) as together,
    ):
        yield Callers(alone, together)


def main() -> None:
    """Measure the models whose data is given, in all precisions that there are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", type=Path, required=True, help="fra-eng.zip, data_full.json, or both")
    parser.add_argument("--models", type=Path, default=Path("build/evaluated"), help="where the packages are")
    parser.add_argument("--inputs", type=int, default=1000, metavar="N", help="how many of each; default: 1000")
    options = parser.parse_args()

    console = Console(width=120)
    data = {file.name: file for file in options.data}
    if "fra-eng.zip" in data:
        examples = tatoeba.load(data["fra-eng.zip"]).test[: options.inputs]
        finish("translation", translation(options.models, examples, console), console)
    if "data_full.json" in data:
        utterances = clinc150.load(data["data_full.json"]).test[: options.inputs]
        texts = [one.text for one in utterances]
        finish("classification", classification(options.models, texts, console), console)


def finish(task: str, figures: Sequence[Figure], console: Console) -> None:
    """Print what isn't as it is asked for, and write everything."""
    for figure in figures:
        if figure.holds is False:
            console.print(f"[bold red]missed[/]  {figure.name}: {figure} {figure.unit}, asked {figure.asked}")
    write("determinism", figures, replacing=f"{task},")


def translation(models: Path, examples: Sequence[tatoeba.Example], console: Console) -> list[Figure]:
    """Print what becomes of translations beside others, with other threads and in int8, and return it."""
    sources = [one.source for one in examples]
    references = [list(stream) for stream in zip_longest(*(one.references for one in examples))]
    translations = translated(models, sources)
    outputs = {
        precision: {way: [Output.of(one) for one in found] for way, found in ways.items()}
        for precision, ways in translations.items()
    }
    found = {name: Divergence(*pair) for name, pair in held_to(outputs, TRANSLATIONS)}
    console.print(table_of(f"demo-en-fr, {len(examples):,} sentences", MEASURES, found))
    console.print(margins_of(found))
    figures = list(figures_of("translation", MEASURES, found))
    for name, within, flips, tokens in flips_of(found):
        kind = f"translation, {name}, tokens with a margin of {within}"
        figures += [Figure(kind, "", [tokens]), Figure(f"{kind}, that flip", "%", [100 * flips / max(tokens, 1)])]
    for precision, ways in translations.items():
        for way in ("greedy, alone", "greedy, beside others"):
            score = sacrebleu.BLEU().corpus_score([one.text for one in ways[way]], references).score
            console.print(f"BLEU, {precision}, {way}: {score:.2f}")
            figures.append(Figure(f"translation, {precision}, {way}, BLEU", "BLEU", [score]))
    return figures


def classification(models: Path, texts: Sequence[str], console: Console) -> list[Figure]:
    """Print what becomes of the probabilities of classes beside others and in int8, and return it."""
    probabilities = classified(models, texts)
    found = {name: Movement(*pair) for name, pair in held_to(probabilities, CLASSIFICATIONS)}
    console.print(table_of(f"demo-intent, {len(texts):,} utterances", MOVEMENTS, found))
    return list(figures_of("classification", MOVEMENTS, found))


def translated(models: Path, sources: Sequence[str]) -> dict[str, dict[str, list[Translation]]]:
    """Return the translations of all sources in every precision, in every way to ask for them."""
    translations: dict[str, dict[str, list[Translation]]] = {}
    with callers(models) as asking:
        for precision, package in packages_of("demo-en-fr", asking.alone.models()).items():
            ways = translations[precision] = {}
            for search, options in SEARCHES.items():
                ways[f"{search}, alone"] = translate(asking.alone, package, sources, options)
                ways[f"{search}, beside others"] = translate(asking.together, package, sources, options)
            ways["greedy, alone again"] = translate(asking.alone, package, sources, SEARCHES["greedy"])
            ways["greedy, beside others again"] = translate(asking.together, package, sources, SEARCHES["greedy"])
    for way, (instances, threads) in ELSEWHERE.items():
        with callers(models, "--instances", str(instances), "--intra-op-threads", str(threads)) as asking:
            for precision, package in packages_of("demo-en-fr", asking.alone.models()).items():
                translations[precision][way] = translate(asking.alone, package, sources, SEARCHES["greedy"])
    return translations


def classified(models: Path, texts: Sequence[str]) -> dict[str, dict[str, FloatArray]]:
    """Return the probabilities [texts, classes] in every precision, in every way to ask for them."""
    probabilities: dict[str, dict[str, FloatArray]] = {}
    with callers(models) as asking:
        for precision, package in packages_of("demo-intent", asking.alone.models()).items():
            probabilities[precision] = {
                f"{way}{again}": probabilities_of_package(caller, package, texts)
                for again in ("", " again")
                for way, caller in {"alone": asking.alone, "beside others": asking.together}.items()
            }
    return probabilities


def translate(client: Client, package: Model, sources: Sequence[str], options: Mapping[str, Any]) -> list[Translation]:
    """Return the translations of all sources, with their tokens."""
    answers = client.translate_many(sources, model=package.name, version=package.version, truncate=True, **options)
    whole(answers)
    return [answer for answer in answers if isinstance(answer, Translation)]


def held_to(
    answers: Mapping[str, Mapping[str, Any]], references: Mapping[str, str]
) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Yield each way's answers behind those that they are held to; last every coarser precision's, behind fp32's."""
    for precision, ways in answers.items():
        for way, reference in references.items():
            yield f"{precision}, {way}", (ways[reference], ways[way])
    alone = next(iter(references.values()))
    for precision in answers.keys() - {"fp32"}:
        yield f"{precision} for fp32, {alone}", (answers["fp32"][alone], answers[precision][alone])


def bar_of(name: str, measure: str) -> float | None:
    """Return the most that is asked for: what is alone gives the same bits again, and fp32 the same answers always."""
    same_bits = name.endswith(SAME_BITS) and measure.endswith("a bit differs")
    same_answers = name.startswith("fp32, ") and measure.endswith("s that differ")
    return 0.0 if same_bits or same_answers else None


def figures_of(task: str, measures: Mapping[str, tuple[str, Any]], found: Mapping[str, Any]) -> Iterator[Figure]:
    """Yield every measure of all that was compared."""
    for name, one in found.items():
        for measure, (unit, measured) in measures.items():
            yield Figure(f"{task}, {name}, {measure}", unit, [measured(one)], bar_of(name, measure), limits=True)


def table_of(title: str, measures: Mapping[str, tuple[str, Any]], found: Mapping[str, Any]) -> Table:
    """Return a line for each comparison, a column for each measure."""
    table = Table(Column(no_wrap=True), title=title)
    for measure, (unit, _) in measures.items():
        table.add_column(f"{measure}, {unit}" if unit else measure, justify="right")
    for name, one in found.items():
        table.add_row(name, *(f"{measured(one):.3g}" for _, measured in measures.values()))
    return table


def flips_of(found: Mapping[str, Divergence]) -> Iterator[tuple[str, str, int, int]]:
    """Yield each comparison in which tokens flip, and of each range of margins the flips and all tokens."""
    low = (0.0, *EDGES)
    ranges = [f"{one:g} to {other:g}" for one, other in pairwise(low)] + [f"{low[-1]:g} and more"]
    for name, one in found.items():
        if one.flips and one.has_margins:
            yield from ((name, *row) for row in zip(ranges, *one.by_margin(EDGES), strict=True))


def margins_of(found: Mapping[str, Divergence]) -> Table:
    """Return how many tokens flip of those that the reference was so sure of."""
    table = Table("tokens that flip, by the margin of the reference")
    rows: dict[str, list[str]] = {}
    for name, within, flips, tokens in flips_of(found):
        if within not in (column.header for column in table.columns):
            table.add_column(within, justify="right")
        rows.setdefault(name, [name]).append(f"{flips} of {tokens}\n{100 * flips / max(tokens, 1):.3g} %")
    for row in rows.values():
        table.add_row(*row)
    return table


if __name__ == "__main__":
    main()

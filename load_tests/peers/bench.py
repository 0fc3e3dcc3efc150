"""Measure Regard against its peers: `make bench`, or `python -m load_tests.peers.bench --quick`.

Every contestant runs the same checkpoint in fp32 on two threads and gives exactly 32 tokens for
sources of 10 to 40. Within a round they take turns, each round in another order, so that what the
machine does beside falls on all alike. Ratios are taken within a round; figures are medians of the
rounds, with the lowest and the highest round beside them.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial

from rich.console import Console
from rich.table import Table

from load_tests.peers import results
from load_tests.peers.contestants import Contestant
from load_tests.peers.contestants.ctranslate import CTranslate2
from load_tests.peers.contestants.eager import Transformers
from load_tests.peers.contestants.engine import Engine
from load_tests.peers.contestants.service import Service
from load_tests.peers.course import SHAPES, WORKSPACE, Course
from load_tests.peers.rates import ratios, rotated, tokens_per_second
from load_tests.peers.results import Figure
from load_tests.peers.sources import Source, random_sources, uniform_lengths

CONCURRENCIES = (1, 8, 32)
SEED = 11
THREADS = 2
BARS = {
    "marian-base: engine, 32 at a time": 1300.0,
    "marian-base: engine / transformers alone, 32 at a time": 8.0,
    "marian-base: engine / ctranslate2, 32 at a time": 1300 / 1360,
    "marian-base: service / engine, 32 at a time": 0.9,
}
Sources = dict[int, list[Source]]
"""What is translated, by concurrency."""
Rates = dict[tuple[str, int], list[float]]
"""Tokens per second by contestant and concurrency, one for each round."""

console = Console(width=None if sys.stdout.isatty() else 120)


@dataclass(frozen=True)
class Effort:
    """How much is measured: rounds, and how many sources one run has, by concurrency."""

    rounds: int
    tap_rounds: int
    sources: dict[int, int]


FULL = Effort(rounds=5, tap_rounds=20, sources={1: 12, 8: 48, 32: 128})
QUICK = Effort(rounds=1, tap_rounds=2, sources={1: 4, 8: 16, 32: 64})


def main() -> None:
    """Measure, print the tables and write `build/results/bench.json`, or `bench-rehearsal.json` if it is one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round of the small model: does it all work?")
    parser.add_argument("--rounds", type=int, help=f"rounds of the comparison (default: {FULL.rounds})")
    parser.add_argument("--shape", choices=SHAPES, action="append", help="measure this one only; may be repeated")
    parser.add_argument("--keep", action="store_true", help="use the packages of the last run, if they are there")
    arguments = parser.parse_args()
    effort = QUICK if arguments.quick else FULL
    if arguments.rounds:
        effort = replace(effort, rounds=arguments.rounds)
    target = "bench-rehearsal" if arguments.quick else "bench"
    asked: list[Figure] = []
    for shape in arguments.shape or (["demo-en-fr"] if arguments.quick else list(SHAPES)):
        course, sources = lay(shape, effort, keep=arguments.keep)
        rates = compare(course, sources, effort)
        console.print(_table_of(rates, shape))
        figures = [_figure(shape, name, n, "tokens/s", measured) for (name, n), measured in rates.items()]
        figures += [_figure(shape, "engine", n, "tokens/s", _best(rates, "engine", n)) for n in CONCURRENCIES]
        figures += [_figure(shape, name, n, "ratio", each) for (name, n), each in _ratios(rates).items()]
        figures.append(
            _figure(shape, "taps unasked / without taps", 32, "ratio", measure_taps(course, sources, effort))
        )
        asked += [each for each in figures if each.bar or "taps" in each.name]
        file = results.write(target, figures, replacing=f"{shape}:")
    console.print(results.table_of(asked, "what is asked"))
    console.print(f"written to {file}")


def lay(shape: str, effort: Effort, *, keep: bool) -> tuple[Course, Sources]:
    """Make the checkpoint, its packages with and without taps, its conversion for CTranslate2, and the sources."""
    course = Course(shape, WORKSPACE / shape)
    if not keep:
        course.clear()
    course.lay(["fp32", "fp32-without-taps"], ["fp32"], console.print)
    lengths = {n: uniform_lengths(count) for n, count in effort.sources.items()}
    return course, {n: random_sources(course.tokenizer, each, SEED) for n, each in lengths.items()}


def compare(course: Course, sources: Sources, effort: Effort) -> Rates:
    """Let every contestant run at every concurrency, round after round."""
    makers: list[Callable[[], Contestant]] = [partial(Transformers, course.checkpoint, threads=THREADS)]
    for instances in (1, 2):
        threads = THREADS // instances
        makers += [
            partial(Engine, course.package("fp32"), instances=instances, threads=threads),
            partial(Service, course.models("fp32"), instances=instances, threads=threads),
            partial(CTranslate2, course.converted("fp32"), workers=instances, threads=threads),
        ]
    rates: Rates = {}
    with ExitStack() as stack:
        contestants = _enter(stack, makers, sources[32][:32])
        for number in range(effort.rounds):
            console.print(f"{course.shape}: round {number + 1} of {effort.rounds}")
            for concurrency in CONCURRENCIES:
                for contestant in rotated(contestants, number):
                    rate = tokens_per_second(contestant, sources[concurrency], concurrency)
                    rates.setdefault((contestant.name, concurrency), []).append(rate)
    return rates


def measure_taps(course: Course, sources: Sources, effort: Effort) -> list[float]:
    """Return, for each round, the rate of a package whose taps nobody asks for over that of one without taps."""
    measured = []
    packages = [course.package(kind) for kind in ("fp32", "fp32-without-taps")]
    with ExitStack() as stack:
        makers = [partial(Engine, package, instances=1, threads=THREADS) for package in packages]
        pair = _enter(stack, makers, sources[32][:32])
        for number in range(effort.tap_rounds):
            console.print(f"{course.shape}: taps, round {number + 1} of {effort.tap_rounds}")
            rate = {id(each): tokens_per_second(each, sources[32], 32) for each in rotated(pair, number)}
            measured.append(rate[id(pair[0])] / rate[id(pair[1])])
    return measured


def _enter(stack: ExitStack, makers: Sequence[Callable[[], Contestant]], sources: Sequence[Source]) -> list[Contestant]:
    """Make every contestant and let it run once, unmeasured."""
    contestants = []
    for make in makers:
        contestant = make()
        stack.callback(contestant.close)
        contestant.translate(sources, len(sources))
        contestants.append(contestant)
    return contestants


def _ratios(rates: Rates) -> Rates:
    """Return the ratios within each round, of the faster way of each contestant to share two threads."""
    found: Rates = {}
    for concurrency in CONCURRENCIES:
        best = {kind: _best(rates, kind, concurrency) for kind in ("engine", "service", "ctranslate2", "transformers")}
        for name, these, those in (
            ("engine / transformers alone", best["engine"], rates["transformers", 1]),
            ("engine / transformers in batches", best["engine"], best["transformers"]),
            ("engine / ctranslate2", best["engine"], best["ctranslate2"]),
            ("service / engine", best["service"], best["engine"]),
        ):
            found[name, concurrency] = ratios(these, those)
    return found


def _figure(shape: str, name: str, concurrency: int, unit: str, measured: Sequence[float]) -> Figure:
    full_name = f"{shape}: {name}, {concurrency} at a time"
    return Figure(full_name, unit, measured, BARS.get(full_name))


def _best(rates: Rates, kind: str, concurrency: int) -> list[float]:
    """Return the rates of the fastest contestant of `kind`, by its median."""
    ways = (measured for (name, at), measured in rates.items() if name.split()[0] == kind and at == concurrency)
    return max(ways, key=statistics.median)


def _table_of(rates: Rates, shape: str) -> Table:
    """Return every contestant's rates and the ratios between them."""
    table = Table(title=f"{shape}: tokens/s and ratios, median of the rounds (lowest to highest)")
    table.add_column("")
    for concurrency in CONCURRENCIES:
        table.add_column(f"{concurrency} at a time", justify="right", no_wrap=True)
    for part in (rates, _ratios(rates)):
        for name in sorted({name for name, _ in part}):
            table.add_row(name, *(str(Figure(name, "", part[name, n])) for n in CONCURRENCIES))
        table.add_section()
    return table


if __name__ == "__main__":
    main()

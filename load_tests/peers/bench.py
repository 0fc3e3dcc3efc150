"""Measure Regard against its peers: `make bench`, or `python -m load_tests.peers.bench --quick`.

Every contestant runs the same checkpoint in fp32 on two threads and gives exactly 32 tokens for
sources of 10 to 40. Within a round they take turns, each round in another order, so that what the
machine does beside falls on all alike. Ratios are taken within a round; figures are medians of the
rounds, with the lowest and the highest round beside them.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from load_tests.peers import checkpoints, results
from load_tests.peers.contestants import (
    TARGET_TOKENS,
    Contestant,
    CTranslate2,
    Engine,
    Service,
    Transformers,
    convert_for_ctranslate2,
)
from load_tests.peers.results import Figure
from load_tests.peers.sources import Source, random_sources

CHECKPOINTS = Path("export/checkpoints")
WORKSPACE = Path("build/bench")
CONCURRENCIES = (1, 8, 32)
SEED = 11
SHAPES: dict[str, Callable[[Path], None]] = {
    "demo-en-fr": partial(checkpoints.save_endless_copy, CHECKPOINTS / "demo-en-fr"),
    "marian-base": checkpoints.save_marian_base,
}
BARS = {
    "marian-base: engine, 32 at a time": 1300.0,
    "marian-base: engine / transformers alone, 32 at a time": 8.0,
    "marian-base: engine / ctranslate2, 32 at a time": 1300 / 1360,
    "marian-base: service / engine, 32 at a time": 0.9,
}
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


@dataclass(frozen=True)
class Course:
    """One shape's checkpoint, packages and sources: what its contestants run on."""

    shape: str
    directory: Path
    sources: dict[int, list[Source]]

    @property
    def checkpoint(self) -> Path:
        """The checkpoint that everything else was made from."""
        return self.directory / self.shape

    def package(self, kind: str) -> Path:
        """Return the package with `taps` or the `plain` one."""
        return self.directory / kind / self.shape / "1"


def main() -> None:
    """Measure, print the tables and write `build/results/bench.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round of the small model: does it all work?")
    parser.add_argument("--rounds", type=int, help=f"rounds of the comparison (default: {FULL.rounds})")
    parser.add_argument("--shape", choices=SHAPES, action="append", help="measure this one only; may be repeated")
    parser.add_argument("--keep", action="store_true", help="use the packages of the last run, if they are there")
    arguments = parser.parse_args()
    effort = QUICK if arguments.quick else FULL
    if arguments.rounds:
        effort = replace(effort, rounds=arguments.rounds)
    figures = []
    for shape in arguments.shape or (["demo-en-fr"] if arguments.quick else list(SHAPES)):
        course = lay(shape, effort, keep=arguments.keep)
        rates = compare(course, effort)
        console.print(_table_of(rates, shape))
        figures += [_figure(shape, name, n, "tokens/s", measured) for (name, n), measured in rates.items()]
        figures += [_figure(shape, "engine", n, "tokens/s", _best(rates, "engine", n)) for n in CONCURRENCIES]
        figures += [_figure(shape, name, n, "ratio", each) for (name, n), each in _ratios(rates).items()]
        figures.append(_figure(shape, "taps unasked / without taps", 32, "ratio", measure_taps(course, effort)))
    console.print(results.table_of([each for each in figures if each.bar or "taps" in each.name], "what is asked"))
    console.print(f"written to {results.write('bench', figures)}")


def lay(shape: str, effort: Effort, *, keep: bool) -> Course:
    """Make the checkpoint, its packages with and without taps, its conversion for CTranslate2, and the sources."""
    course = Course(shape, WORKSPACE / shape, {})
    if not (keep and (course.directory / "ctranslate2").exists()):
        console.print(f"{shape}: making the checkpoint")
        shutil.rmtree(course.directory, ignore_errors=True)
        course.directory.mkdir(parents=True)
        SHAPES[shape](course.checkpoint)
        for kind, flags in (("taps", []), ("plain", ["--without-taps"])):
            console.print(f"{shape}: exporting it, {kind}")
            command = [sys.executable, "-m", "regard_export.cli", str(course.checkpoint), *flags]
            subprocess.run([*command, "--output", str(course.directory / kind)], check=True)
        console.print(f"{shape}: converting it for CTranslate2")
        convert_for_ctranslate2(course.checkpoint, course.directory / "ctranslate2")
    tokenizer = course.checkpoint / "tokenizer.json"
    return replace(course, sources={n: random_sources(tokenizer, count, SEED) for n, count in effort.sources.items()})


def compare(course: Course, effort: Effort) -> Rates:
    """Let every contestant run at every concurrency, round after round."""
    makers: list[Callable[[], Contestant]] = [partial(Transformers, course.checkpoint)]
    for instances in (1, 2):
        makers += [
            partial(Engine, course.package("taps"), instances=instances),
            partial(Service, course.directory / "taps", instances=instances),
            partial(CTranslate2, course.directory / "ctranslate2", workers=instances),
        ]
    rates: Rates = {}
    with ExitStack() as stack:
        contestants = _enter(stack, makers, course)
        for number in range(effort.rounds):
            console.print(f"{course.shape}: round {number + 1} of {effort.rounds}")
            for concurrency in CONCURRENCIES:
                for contestant in _rotated(contestants, number):
                    rate = tokens_per_second(contestant, course.sources[concurrency], concurrency)
                    rates.setdefault((contestant.name, concurrency), []).append(rate)
    return rates


def measure_taps(course: Course, effort: Effort) -> list[float]:
    """Return, for each round, the rate of a package whose taps nobody asks for over that of one without taps."""
    ratios = []
    with ExitStack() as stack:
        pair = _enter(stack, [partial(Engine, course.package(kind), instances=1) for kind in ("taps", "plain")], course)
        for number in range(effort.tap_rounds):
            console.print(f"{course.shape}: taps, round {number + 1} of {effort.tap_rounds}")
            rate = {id(each): tokens_per_second(each, course.sources[32], 32) for each in _rotated(pair, number)}
            ratios.append(rate[id(pair[0])] / rate[id(pair[1])])
    return ratios


def tokens_per_second(contestant: Contestant, sources: Sequence[Source], concurrency: int) -> float:
    """Return the rate of one run; raise `ValueError` if any source gave more or fewer tokens than 32."""
    started = time.perf_counter()
    counts = contestant.translate(sources, concurrency)
    elapsed_s = time.perf_counter() - started
    if set(counts) != {TARGET_TOKENS}:
        raise ValueError(f"{contestant.name} gave {sorted(set(counts))} tokens, not {TARGET_TOKENS} each")
    return sum(counts) / elapsed_s


def _enter(stack: ExitStack, makers: Sequence[Callable[[], Contestant]], course: Course) -> list[Contestant]:
    """Make every contestant and let it run once, unmeasured."""
    contestants = []
    for make in makers:
        contestant = make()
        stack.callback(contestant.close)
        contestant.translate(course.sources[32][:32], 32)
        contestants.append(contestant)
    return contestants


def _rotated(contestants: Sequence[Contestant], number: int) -> list[Contestant]:
    first = number % len(contestants)
    return [*contestants[first:], *contestants[:first]]


def _ratios(rates: Rates) -> Rates:
    """Return the ratios within each round, of the faster way of each contestant to share two threads."""
    ratios: Rates = {}
    for concurrency in CONCURRENCIES:
        best = {kind: _best(rates, kind, concurrency) for kind in ("engine", "service", "ctranslate2", "transformers")}
        for name, these, those in (
            ("engine / transformers alone", best["engine"], rates["transformers", 1]),
            ("engine / transformers in batches", best["engine"], best["transformers"]),
            ("engine / ctranslate2", best["engine"], best["ctranslate2"]),
            ("service / engine", best["service"], best["engine"]),
        ):
            ratios[name, concurrency] = [one / other for one, other in zip(these, those, strict=True)]
    return ratios


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

"""Compare Regard with its peers: `make bench-peers`, or `python -m load_tests.peers.compare --quick`.

All contestants run the same random weights of Marian's base shape on the same cores, take turns, and give
as many tokens as each source asks for. Figures are medians of the rounds, with the lowest and the highest
beside them; ratios are taken within a round. A part that is run alone leaves the others' figures where
they are in `build/results/bench-peers.json`. A rehearsal (`--quick`) runs the demonstration's shape and
writes `bench-peers-rehearsal.json`.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time

from rich.console import Console

from load_tests.peers import results
from load_tests.peers.course import QUANTIZATIONS, SHAPES, SMALL_SHAPE, WORKSPACE, Course
from load_tests.peers.results import Figure
from load_tests.peers.setting import PRECISIONS, Setting

PARTS = {
    "throughput": "tokens per second with everything due at once, and peak memory",
    "arrivals": "latency of requests that come at random, and a picture of it",
    "step": "a step of the decoder against its matrix products alone",
    "overload": "what up to 16 times too many requests do to throughput, and 30,000 to memory",
    "profile": "where a step's time goes, by operator, and the Python around it",
}
ROUNDS = 5

console = Console(width=None if sys.stdout.isatty() else 120)


def main() -> None:
    """Measure, print the tables and write the results."""
    options = _read_options()
    course = Course(options.shape, WORKSPACE / options.shape)
    if not options.keep:
        course.clear()
        Course(SMALL_SHAPE, WORKSPACE / SMALL_SHAPE).clear()  # whose memory is watched
    course.lay(options.precision, [each for each in options.precision if each in QUANTIZATIONS], console.print)
    rounds = options.rounds or (1 if options.quick else ROUNDS)
    setting = Setting(course, rounds, options.quick, console.print, tuple(options.precision))
    target = "bench-peers-rehearsal" if options.quick else "bench-peers"
    asked: list[Figure] = []
    for part in options.part:
        started = time.perf_counter()
        figures: list[Figure] = importlib.import_module(f"load_tests.peers.{part}").measure(setting)
        console.print(results.table_of(figures, f"{options.shape}: {part}"))
        console.print(f"{part}: {time.perf_counter() - started:.0f} s", style="dim")
        asked += [figure for figure in figures if figure.bar is not None]
        file = results.write(target, figures, replacing=f"{part},")
    console.print(results.table_of(asked, f"{options.shape}: what is asked"))
    console.print(f"written to {file}")


def _read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m load_tests.peers.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="parts:\n" + "\n".join(f"  {part:<12}{about}" for part, about in PARTS.items()),
    )
    add = parser.add_argument
    add("--part", choices=PARTS, action="append", help="measure this part only; may be repeated (default: all)")
    add("--precision", choices=PRECISIONS, action="append", help="this one only; may be repeated (default: both)")
    add("--shape", choices=SHAPES, help="the model's shape (default: marian-base; demo-en-fr for a rehearsal)")
    add("--rounds", type=int, help=f"rounds that contestants take turns in (default: {ROUNDS}; 1 for a rehearsal)")
    add("--quick", action="store_true", help="a rehearsal: does it all work?")
    add("--keep", action="store_true", help="use the packages of the last run, if they are there")
    options = parser.parse_args()
    options.part = options.part or list(PARTS)
    options.precision = [each for each in PRECISIONS if not options.precision or each in options.precision]
    options.shape = options.shape or ("demo-en-fr" if options.quick else "marian-base")
    return options


if __name__ == "__main__":
    main()

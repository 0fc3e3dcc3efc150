"""Measure what attention costs: `make bench-attention`, or `python -m load_tests.attention.bench --quick`.

A server of Marian's base shape and one of BERT's, with random weights, are asked over gRPC for attention by
none, some and all of their requests. Whatever is compared takes turns in rounds, each in another order;
ratios are taken within a round, and figures are medians of the rounds, with the lowest and the highest beside
them. A part that is run alone leaves the others' figures where they are in `build/results/bench-attention.json`.
A rehearsal (`--quick`) runs small shapes and writes `bench-attention-rehearsal.json`.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time

from rich.console import Console

from load_tests.attention.setting import Setting, clear
from load_tests.peers import results
from load_tests.peers.results import Figure

PARTS = {
    "translation": "tokens per second with the alignment heads' map for 0, 1, 10 and 100 % of requests, and of peers",
    "classification": "texts per second with the maps of all layers, heads averaged or one by one",
    "neighbours": "how long requests wait that ask for none, beside 10 % that do",
}
ROUNDS, REHEARSED_ROUNDS = 20, 2

console = Console(width=None if sys.stdout.isatty() else 120)


def main() -> None:
    """Measure, print the tables and write the results."""
    options = _read_options()
    if not options.keep:
        clear()
    setting = Setting(options.rounds or (REHEARSED_ROUNDS if options.quick else ROUNDS), options.quick, console.print)
    target = "bench-attention-rehearsal" if options.quick else "bench-attention"
    asked: list[Figure] = []
    for part in options.part:
        started = time.perf_counter()
        figures: list[Figure] = importlib.import_module(f"load_tests.attention.{part}").measure(setting)
        console.print(results.table_of(figures, part))
        console.print(f"{part}: {time.perf_counter() - started:.0f} s", style="dim")
        asked += [figure for figure in figures if figure.bar is not None]
        file = results.write(target, figures, replacing=f"{part},")
    console.print(results.table_of(asked, "what is asked"))
    console.print(f"written to {file}")


def _read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m load_tests.attention.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="parts:\n" + "\n".join(f"  {part:<16}{about}" for part, about in PARTS.items()),
    )
    add = parser.add_argument
    add("--part", choices=PARTS, action="append", help="measure this part only; may be repeated (default: all)")
    add("--rounds", type=int, help=f"rounds of every comparison (default: {ROUNDS}; {REHEARSED_ROUNDS} to rehearse)")
    add("--quick", action="store_true", help="a rehearsal: does it all work?")
    add("--keep", action="store_true", help="use the packages of the last run, if they are there")
    options = parser.parse_args()
    options.part = options.part or list(PARTS)
    return options


if __name__ == "__main__":
    main()

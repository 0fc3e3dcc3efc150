"""Where a step's time goes: the graph by its operators, as ONNX Runtime profiles it, and the Python around it."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from load_tests.peers.decoding import Decoding
from load_tests.peers.products import Run, session_options
from load_tests.peers.results import Figure
from load_tests.peers.setting import Setting
from load_tests.peers.sources import random_sources, uniform_lengths

ROWS = (1, 32, 64)
STEPS = 20
LEAST_SHARE = 0.01
"""Operators that take less of the time are summed up."""
SEED = 11


def measure(setting: Setting) -> list[Figure]:
    """Return, for each precision and number of rows, the milliseconds of a step by operator."""
    return [
        figure for precision in setting.precisions for rows in ROWS for figure in _measure(setting, precision, rows)
    ]


def _measure(setting: Setting, precision: str, rows: int) -> Iterator[Figure]:
    setting.say(f"profile, {precision}: {rows} rows")
    sources = random_sources(setting.course.tokenizer, uniform_lengths(rows), SEED)
    decoding = Decoding(setting.course.package(precision), sources, setting.cores, STEPS + 2)
    engine_ms = [1000 * decoding.step() for _ in range(STEPS)]
    graph_ms = [1000 * seconds for seconds in decoding.graph_s[-STEPS:]]
    title = f"profile, {precision}, {rows} rows"
    yield Figure(f"{title}: a step", "ms", [statistics.median(engine_ms)])
    around = [whole - graph for whole, graph in zip(engine_ms, graph_ms, strict=True)]
    yield Figure(f"{title}: the engine around the graph", "ms", [statistics.median(around)])
    shares = operators_ms(_profiled(decoding, setting.cores), STEPS)
    for operator, milliseconds in gathered(shares).items():
        yield Figure(f"{title}: {operator}", "ms", [milliseconds])


def _profiled(decoding: Decoding, threads: int) -> list[dict[str, Any]]:
    """Return what ONNX Runtime notes of running the step at hand again and again."""
    inputs, outputs, fetches = decoding.watched.bound
    with tempfile.TemporaryDirectory() as scratch:
        options = session_options(threads)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(scratch) / "step")
        run = Run(decoding.graph, options, inputs, outputs, fetches)
        for _ in range(STEPS):
            run()
        events: list[dict[str, Any]] = json.loads(Path(run.session.end_profiling()).read_text())
    return events


def operators_ms(events: Iterable[Mapping[str, Any]], runs: int) -> dict[str, float]:
    """Return the milliseconds that the kernels of each operator took of a run, the longest first.

    An `If` is left out: the nodes of the branch that it takes have events of their own.
    """
    spent: Counter[str] = Counter()
    for event in events:
        own = event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
        if own and event["args"]["op_name"] != "If":
            spent[event["args"]["op_name"]] += event["dur"]
    return {operator: microseconds / 1000 / runs for operator, microseconds in spent.most_common()}


def gathered(shares: Mapping[str, float]) -> dict[str, float]:
    """Return the operators with those summed up that take little, the others' sum last."""
    least = LEAST_SHARE * sum(shares.values())
    told = {operator: spent for operator, spent in shares.items() if spent >= least}
    rest = sum(spent for spent in shares.values() if spent < least)
    return told | ({"all other operators": rest} if rest else {})

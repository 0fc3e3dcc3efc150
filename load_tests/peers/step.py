"""A step of the decoder against its matrix products alone, by the same kernels on the same threads."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx

from load_tests.peers.decoding import Decoding
from load_tests.peers.products import Run, optimised, products_of, session_options
from load_tests.peers.results import Figure
from load_tests.peers.setting import Setting
from load_tests.peers.sources import random_sources, uniform_lengths

ROWS = (1, 8, 32, 64)
STEPS = 6
"""Steps of each round, of which the median counts; each takes as many rows as the one before."""
WARMING = 8
"""Steps before the first round: what comes after them decodes from the middle of a sentence."""
SEED = 11
BARS = {("int8", 64): 1.5}


def measure(setting: Setting) -> list[Figure]:
    """Return, for each precision and number of rows, how long a step takes, and over its products."""
    return [figure for precision in setting.precisions for figure in _measure(setting, precision)]


def _measure(setting: Setting, precision: str) -> Iterator[Figure]:
    models: dict[Path, onnx.ModelProto] = {}
    for rows in ROWS:
        setting.say(f"step, {precision}: {rows} rows")
        sources = random_sources(setting.course.tokenizer, uniform_lengths(rows), SEED)
        steps = 1 + WARMING + STEPS * setting.rounds
        decoding = Decoding(setting.course.package(precision), sources, setting.cores, steps + 1)
        if decoding.graph not in models:
            models[decoding.graph] = optimised(decoding.graph)
        for _ in range(WARMING):
            decoding.step()
        inputs, outputs, _ = decoding.watched.bound
        products = products_of(models[decoding.graph], setting.cores, inputs, outputs)
        options = session_options(setting.cores)
        apart = Run(products.model.SerializeToString(), options, products.feeds, {}, products.outputs)
        for _ in range(WARMING):
            apart()
        engine_s, graph_s, products_s = [], [], []
        for _ in range(setting.rounds):
            engine_s.append(_median_s(decoding.step))
            graph_s.append(statistics.median(decoding.graph_s[-STEPS:]))
            products_s.append(_median_s(apart))
        title = f"step, {precision}, {rows} rows"
        measured = (("of the engine", engine_s), ("of the graph alone", graph_s), ("its products alone", products_s))
        yield from (Figure(f"{title}: {who}", "ms", [1000 * each for each in seconds]) for who, seconds in measured)
        for who, seconds in measured[:2]:
            ratios = [one / other for one, other in zip(seconds, products_s, strict=True)]
            bar = BARS.get((precision, rows)) if who == "of the engine" else None
            yield Figure(f"{title}: {who} / its products", "ratio", ratios, bar, limits=True)


def _median_s(run: Callable[[], object]) -> float:
    """Return how many seconds one of several runs takes."""
    seconds = []
    for _ in range(STEPS):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)

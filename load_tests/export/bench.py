"""Measure exported graphs against what else the same model can become: `make bench-export`, or `--quick`.

Base shapes of BERT, ViT and Marian with random weights, on ONNX Runtime with two threads: Regard's graphs
against `torch.onnx.export` of the model with SDPA, and of the model with eager attention whose outputs hold
every weight. Regard's run twice: asked for no weights, and for all. Rivals run in a session such as Regard's
service has, or as ONNX Runtime makes it by itself, whichever is faster. Graphs of one model take turns, in
another order each round; ratios are taken within a round, and figures are medians of the rounds. A model that
is measured alone leaves the others' figures where they are in `build/results/bench-export.json`. A rehearsal
(`--quick`) writes `bench-export-rehearsal.json`.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch
from rich.console import Console
from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification, MarianMTModel

from load_tests.export import rivals
from load_tests.export.graphs import Feeds, Run, names_of, run_of, session
from load_tests.gpu import shapes
from load_tests.peers import results
from load_tests.peers.results import Figure
from regard.manifest import Package, load_package
from regard_export.graphs import REDUCED_ROWS
from regard_export.package import Options, export
from regard_export.stepping import session_options

Array = npt.NDArray[Any]
WORKSPACE = Path("build/bench-export")
BATCH_TOKENS = 512
LENGTHS = (32, 128, 512)
IMAGES, STEP_ROWS, CACHED, STEPS = 2, 16, 32, 32
LEAST_SPEED, LEAST_SPEED_WITH_WEIGHTS, LEAST_SPEED_OF_INT8 = 0.97, 1.0, 1.6
AUTO = torch.export.Dim.AUTO

console = Console(width=None if sys.stdout.isatty() else 120)


@dataclass(frozen=True)
class Effort:
    """How much is measured: in every round, each graph runs for `seconds`, at least once.

    Rivals' sessions are chosen in rounds of their own, the `trials`.
    """

    rounds: int
    trials: int
    seconds: float
    tiny: bool


FULL, QUICK = Effort(rounds=25, trials=7, seconds=0.25, tiny=False), Effort(rounds=2, trials=1, seconds=0.05, tiny=True)


def main() -> None:
    """Measure, print the table and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two rounds of tiny models: does it all work?")
    parser.add_argument("--model", choices=MODELS, action="append", help="measure this one only; may be repeated")
    parser.add_argument("--keep", action="store_true", help="use Regard's packages of the last run, if they are there")
    arguments = parser.parse_args()
    target = "bench-export-rehearsal" if arguments.quick else "bench-export"
    figures: list[Figure] = []
    for name in arguments.model or MODELS:
        bench = Bench(name, QUICK if arguments.quick else FULL)
        if not arguments.keep:
            bench.clear()
        measured = MODELS[name](bench)
        file = results.write(target, measured, replacing=f"{name},")
        figures += measured
    console.print(results.table_of(figures, "exported graphs on ONNX Runtime"))
    console.print(f"written to {file}")


@dataclass(frozen=True)
class Bench:
    """One shape; its checkpoint and the rivals' graphs are kept between runs."""

    name: str
    effort: Effort

    @property
    def directory(self) -> Path:
        """Where all of it is."""
        return WORKSPACE / f"{self.name}{'-tiny' if self.effort.tiny else ''}"

    def clear(self) -> None:
        """Remove Regard's packages: another version of it may have made them."""
        shutil.rmtree(self.directory / "models", ignore_errors=True)

    def checkpoint(self, save: Callable[..., None]) -> Path:
        """Return the checkpoint."""
        path = self.directory / "checkpoint"
        if not path.exists():
            console.print(f"{self.name}: making the checkpoint")
            save(path, tiny=self.effort.tiny)
        return path

    def packages(self) -> dict[str, Package]:
        """Return Regard's packages of the checkpoint, by their precision."""
        models, found = self.directory / "models", {}
        for precision in ("fp32", "int8"):
            directory = models / precision / "1"
            if not directory.exists():
                console.print(f"{self.name}: exporting it in {precision}")
                export(self.directory / "checkpoint", models, Options(name=precision, precision=precision))
            found[precision] = load_package(directory)
        return found

    def rival(self, name: str, module: torch.nn.Module, inputs: Mapping[str, Any], shapes: Mapping[str, Any]) -> Path:
        """Return the file of what a module becomes; `shapes` says what varies, as `torch.export` takes it."""
        file = self.directory / f"{name}.onnx"
        if not file.exists():
            console.print(f"{self.name}: exporting the rival's {name}")
            rivals.write(module, inputs, shapes, file)
        return file

    def fastest(self, file: Path, feeds: Feeds) -> Run:
        """Return a function that runs a rival's graph in the session that suits it best."""
        sessions = {"ONNX Runtime's own": session(file), "the service's": session(file, session_options())}
        runs = {name: run_of(each, feeds, names_of(each)) for name, each in sessions.items()}
        times = self.milliseconds(runs, self.effort.trials)
        return runs[min(runs, key=lambda name: statistics.median(times[name]))]

    def milliseconds(self, runs: Mapping[str, Run], rounds: int) -> dict[str, list[float]]:
        """Let graphs take turns; return the median time of a run of each, for every round."""
        measured: dict[str, list[float]] = {name: [] for name in runs}
        for run in runs.values():
            run()
        for number in range(rounds):
            for name in Random(number).sample(list(runs), len(runs)):  # so that none always follows the same other
                measured[name].append(_median_time(runs[name], self.effort.seconds))
        return measured


def _median_time(run: Run, seconds: float) -> float:
    began, times = time.perf_counter(), list[float]()
    while not times or time.perf_counter() - began < seconds:
        before = time.perf_counter()
        run()
        times.append(time.perf_counter() - before)
    return 1e3 * statistics.median(times)


@dataclass(frozen=True)
class Contest:
    """One graph of Regard and its rivals' on one input. `feeds` are Regard's, without the rows that ask for weights."""

    title: str
    ours: Mapping[str, ort.InferenceSession]
    feeds: Feeds
    rows: int
    answers: Sequence[str]
    """The outputs that are no weights."""
    maps: Sequence[str]
    rivals: Mapping[str, Path]
    """The graphs with SDPA and with eager attention, by these names."""
    rivals_feeds: Feeds
    in_place: Mapping[str, str] = field(default_factory=dict)
    """The outputs that are written where inputs are, by those inputs."""

    def hold(self, bench: Bench) -> list[Figure]:
        """Measure; return the times and what is asked of them."""
        return self.judge(self.measure(bench))

    def measure(self, bench: Bench) -> dict[str, list[float]]:
        """Return the milliseconds that a run of each graph took in every round."""
        none, all_rows = (
            {"self_tap_rows": np.arange(rows), "cross_tap_rows": np.arange(rows)}
            | {name: np.zeros(0, np.int64) for name in REDUCED_ROWS.values()}
            for rows in (0, self.rows)
        )
        fp32, int8 = self.ours["fp32"], self.ours["int8"]
        times = bench.milliseconds(
            {
                "regard": run_of(fp32, self.feeds | none, self.answers, self.in_place),
                "regard, all weights": run_of(fp32, self.feeds | all_rows, [*self.answers, *self.maps], self.in_place),
                "sdpa": bench.fastest(self.rivals["sdpa"], self.rivals_feeds),
                "eager, all weights": bench.fastest(self.rivals["eager"], self.rivals_feeds),
                "regard, int8": run_of(int8, self.feeds | none, self.answers, self.in_place),
            },
            bench.effort.rounds,
        )
        medians = ", ".join(f"{name} {statistics.median(each):.2f} ms" for name, each in times.items())
        console.print(f"{self.title}: {medians}")
        return times

    def judge(self, times: Mapping[str, list[float]]) -> list[Figure]:
        """Return the times and what is asked of them."""
        best = min(times["sdpa"], times["eager, all weights"], key=statistics.median)
        return [
            *(Figure(f"{self.title}: {name}", "ms", each) for name, each in times.items()),
            self._speed("regard / the best rival", best, times["regard"], LEAST_SPEED),
            self._speed(
                "regard / eager, all weights",
                times["eager, all weights"],
                times["regard, all weights"],
                LEAST_SPEED_WITH_WEIGHTS,
            ),
            self._speed("int8 / fp32", times["regard"], times["regard, int8"], LEAST_SPEED_OF_INT8),
        ]

    def _speed(self, name: str, theirs: Sequence[float], ours: Sequence[float], bar: float) -> Figure:
        return speed(f"{self.title}: speed, {name}", theirs, ours, bar)


def speed(name: str, theirs: Sequence[float], ours: Sequence[float], bar: float) -> Figure:
    """Return how many times as fast ours were, in every round."""
    return Figure(name, "ratio", [other / one for other, one in zip(theirs, ours, strict=True)], bar)


def bench_bert(bench: Bench) -> list[Figure]:
    """Measure a classifier of texts."""
    checkpoint = bench.checkpoint(shapes.save_bert)
    ids = torch.ones(2, 8, dtype=torch.int64)
    example = {"input_ids": ids, "attention_mask": ids}
    both = {0: AUTO, 1: AUTO}
    graphs = _classifiers(bench, AutoModelForSequenceClassification, checkpoint, example, dict.fromkeys(example, both))
    return [
        figure
        for length in LENGTHS
        for figure in _classify(bench, graphs, *_texts(length, 100), f"{BATCH_TOKENS // length} x {length}")
    ]


def bench_vit(bench: Bench) -> list[Figure]:
    """Measure a classifier of images."""
    checkpoint, side = bench.checkpoint(shapes.save_vit), 16 if bench.effort.tiny else 224
    example = {"pixel_values": torch.zeros(2, 3, side, side)}
    graphs = _classifiers(bench, AutoModelForImageClassification, checkpoint, example, {"pixel_values": {0: AUTO}})
    pixels = np.random.default_rng(0).standard_normal((IMAGES, 3, side, side)).astype(np.float32)
    return _classify(bench, graphs, {"pixel_values": pixels}, {"pixel_values": pixels}, f"{IMAGES} images")


def _classifiers(
    bench: Bench, kind: Any, checkpoint: Path, example: Mapping[str, torch.Tensor], varying: Mapping[str, Any]
) -> dict[str, Path]:
    return {
        name: bench.rival(
            name, rivals.Classifier(_model(kind, checkpoint, name), weights=name == "eager"), example, varying
        )
        for name in ("sdpa", "eager")
    }


def _classify(bench: Bench, graphs: Mapping[str, Path], feeds: Feeds, rivals_feeds: Feeds, title: str) -> list[Figure]:
    packages = bench.packages()
    rows = len(next(iter(feeds.values())))
    maps = [tap.output for tap in packages["fp32"].manifest.taps]
    return Contest(
        f"{bench.name}, {title}",
        _ours(packages, "classifier"),
        feeds,
        rows,
        ["logits"],
        maps,
        graphs,
        rivals_feeds,
    ).hold(bench)


def bench_marian(bench: Bench) -> list[Figure]:
    """Measure a translator's encoder and one step of its decoder; of int8, what a translation takes of both."""
    checkpoint = bench.checkpoint(shapes.save_marian)
    models = {name: _model(MarianMTModel, checkpoint, name) for name in ("sdpa", "eager")}
    packages, found = bench.packages(), list[Figure]()
    for length in LENGTHS:
        contests = _encoder(bench, packages, models, length), _step(bench, packages, models, length)
        encoder, step = (contest.measure(bench) for contest in contests)
        found += contests[0].judge(encoder) + contests[1].judge(step)
        encodings = STEP_ROWS / (BATCH_TOKENS // length)
        fp32, int8 = (
            [encodings * one + STEPS * other for one, other in zip(encoder[name], step[name], strict=True)]
            for name in ("regard", "regard, int8")
        )
        title = f"{bench.name}, {STEP_ROWS} sources of {length} encoded and {STEPS} steps: speed, int8 / fp32"
        found.append(speed(title, fp32, int8, LEAST_SPEED_OF_INT8))
    return found


def _encoder(bench: Bench, packages: Mapping[str, Package], models: Mapping[str, Any], length: int) -> Contest:
    ids = torch.ones(2, 8, dtype=torch.int64)
    example, both = {"input_ids": ids, "attention_mask": ids}, {0: AUTO, 1: AUTO}
    graphs = {
        name: bench.rival(
            f"encoder-{name}", rivals.Encoder(model, weights=name == "eager"), example, dict.fromkeys(example, both)
        )
        for name, model in models.items()
    }
    manifest = packages["fp32"].manifest
    feeds, rivals_feeds = _texts(length, 100)
    return Contest(
        f"{bench.name}, encoder, {BATCH_TOKENS // length} x {length}",
        _ours(packages, "encoder"),
        feeds,
        BATCH_TOKENS // length,
        [spec.encoder_output for spec in manifest.cross_state],
        [tap.output for tap in manifest.taps if tap.graph == "encoder"],
        graphs,
        rivals_feeds,
    )


def _step(bench: Bench, packages: Mapping[str, Package], models: Mapping[str, Any], source: int) -> Contest:
    """Return the contest of a step of rows whose caches hold 32 tokens; the rivals' graphs are of just these sizes."""
    random, manifest = np.random.default_rng(0), packages["fp32"].manifest

    def blocks(specs: Sequence[Any], positions: int) -> list[Array]:
        shapes = [(STEP_ROWS, spec.heads, positions, spec.head_size) for spec in specs]
        return [random.standard_normal(shape).astype(np.float32) for shape in shapes]

    past, cross = blocks(manifest.state, CACHED), blocks(manifest.cross_state, source)
    tokens, mask = random.integers(3, 100, (STEP_ROWS, 1)), np.ones((STEP_ROWS, source), np.int64)
    example = {
        "token_ids": torch.from_numpy(tokens),
        "attention_mask": torch.from_numpy(mask),
        "past": [torch.from_numpy(array) for array in past],
        "cross": [torch.from_numpy(array) for array in cross],
    }
    fixed = {name: [None] * len(part) if isinstance(part, list) else None for name, part in example.items()}
    graphs = {
        name: bench.rival(f"step-{source}-{name}", rivals.Step(model, weights=name == "eager"), example, fixed)
        for name, model in models.items()
    }
    names = [value.name for value in session(graphs["sdpa"]).get_inputs()]
    feeds: dict[str, Array] = {
        "token_ids": tokens,
        "row_length": np.full(STEP_ROWS, CACHED, np.int32),
        "total_length": np.array(CACHED + 1, np.int32),
        "source_length": np.full(STEP_ROWS, source, np.int32),
        "num_candidates": np.array([1]),
        "scored": np.array([True]),
        **dict(zip([spec.input for spec in manifest.state], blocks(manifest.state, 2 * CACHED), strict=True)),
        **dict(zip([spec.step_input for spec in manifest.cross_state], cross, strict=True)),
    }
    return Contest(
        f"{bench.name}, step, {STEP_ROWS} rows, sources of {source}",
        _ours(packages, "step"),
        feeds,
        STEP_ROWS,
        ["candidate_ids", "candidate_scores", "log_sum_exp"],
        [tap.output for tap in manifest.taps if tap.graph == "step"],
        graphs,
        dict(zip(names, [tokens, mask, *past, *cross], strict=True)),
        in_place={spec.input: spec.output for spec in manifest.state},
    )


def _ours(packages: Mapping[str, Package], graph: str) -> dict[str, ort.InferenceSession]:
    """Return the sessions of a graph, as the service has them."""
    return {
        precision: session(package.path(package.manifest.graphs[graph].file), session_options())
        for precision, package in packages.items()
    }


def _texts(length: int, vocabulary_size: int) -> tuple[Feeds, Feeds]:
    """Return random texts, without padding, as Regard's graphs take them and as the rivals' do."""
    ids = np.random.default_rng(0).integers(3, vocabulary_size, (BATCH_TOKENS // length, length))
    lengths = np.full(len(ids), length, np.int32)
    return {"input_ids": ids, "source_length": lengths}, {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def _model(kind: Any, checkpoint: Path, attention: str) -> Any:
    return kind.from_pretrained(checkpoint, attn_implementation=attention, dtype=torch.float32).eval()


MODELS: dict[str, Callable[[Bench], list[Figure]]] = {
    "bert-base": bench_bert,
    "vit-base": bench_vit,
    "marian-base": bench_marian,
}


if __name__ == "__main__":
    main()

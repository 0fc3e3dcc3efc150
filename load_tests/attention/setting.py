"""What every part is given: the packages, the machine's cores, and how long to measure."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random

from load_tests.gpu.shapes import save_bert
from load_tests.peers.course import Course
from load_tests.peers.sources import Source, random_sources, uniform_lengths
from regard.manifest import AlignmentHead, AlignmentSpec, load_package
from regard_export.package import Options, export
from regard_export.sealing import reseal

WORKSPACE = Path("build/bench-attention")
ALIGNMENT = AlignmentSpec(
    heads=(
        AlignmentHead(layer=1, head=0, position="output"),
        AlignmentHead(layer=0, head=1, position="input"),
        AlignmentHead(layer=1, head=3, position="output"),
        AlignmentHead(layer=1, head=1, position="output"),
        AlignmentHead(layer=0, head=1, position="output"),
    ),
    method="intersection",
    tension=0.0,
    pairs=0,
    silver_aer=1.0,
)
"""Heads such as calibration found in the demonstration's translator: random weights align nothing."""
SETTLE_S = 0.25
"""Between two runs: threads of OpenMP spin so long for more work, on the cores of whoever comes next."""
SEED = 11


@dataclass(frozen=True)
class Setting:
    """Base shapes of Marian and BERT; `quick` is a rehearsal on small ones, whose figures say nothing."""

    rounds: int
    quick: bool
    say: Callable[[str], None]

    @cached_property
    def cores(self) -> int:
        """How many cores there are for all contestants."""
        return len(os.sched_getaffinity(0))

    @cached_property
    def translator(self) -> Course:
        """The translator's packages, with taps and without, and its conversion for CTranslate2; made if need be."""
        shape = "demo-en-fr" if self.quick else "marian-base"
        course = Course(shape, WORKSPACE / shape)
        course.lay(["fp32", "fp32-without-taps"], ["fp32"], self.say)
        package = load_package(course.package("fp32"))
        if package.manifest.alignment is None:
            reseal(package.directory, package.manifest, alignment=ALIGNMENT)
        return course

    @cached_property
    def classifier(self) -> Path:
        """The directory that BERT's checkpoint lies in, beside `models/`, where its package does; made if need be."""
        directory = WORKSPACE / ("bert-tiny" if self.quick else "bert-base")
        if not (directory / "checkpoint").exists():
            self.say(f"{directory.name}: making the checkpoint")
            save_bert(directory / "checkpoint", tiny=self.quick)
        if not (directory / "models" / directory.name).exists():
            self.say(f"{directory.name}: exporting it")
            export(directory / "checkpoint", directory / "models", Options(name=directory.name))
        return directory

    def sources(self, count: int) -> list[Source]:
        """Return texts of 10 to 40 tokens for the translator, from which 32 are to come."""
        return random_sources(self.translator.tokenizer, uniform_lengths(count), SEED)

    def take_turns(self, title: str, runs: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
        """Let every run measure itself once a round, in another order each time; return what each measured."""
        measured: dict[str, list[float]] = {name: [] for name in runs}
        for number in range(self.rounds):
            self.say(f"{title}: round {number + 1} of {self.rounds}")
            for name in Random(number).sample(list(runs), len(runs)):  # so that none always follows the same other
                time.sleep(SETTLE_S)
                measured[name].append(runs[name]())
        return measured


def asking(share: float, count: int) -> list[bool]:
    """Return, of so many requests, which ask for attention: a `share` of them, at least one, evenly spread."""
    asked = max(1, round(share * count)) if share else 0
    return [number * asked // count != (number + 1) * asked // count for number in range(count)]


def clear() -> None:
    """Remove what was made before."""
    shutil.rmtree(WORKSPACE, ignore_errors=True)

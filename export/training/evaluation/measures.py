"""What an evaluation found: figures of the checkpoint beside those of its packages."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import onnxruntime
import sacrebleu
import torch
import transformers
from rich.console import Console
from rich.table import Table

from regard.manifest import QualitySpec

EXACT_TOLERANCE = 0.1
"""Points by which an fp32 package may differ from its checkpoint."""
INT8_LOSS = 0.5
"""Points that an int8 package may lose where a figure says that it matters."""


@dataclass(frozen=True)
class Figure:
    """One measure of quality, higher is better; `packages` has it for each precision.

    `bar` is what the checkpoint should reach. `guarded` figures may lose little in int8.
    """

    name: str
    unit: str
    checkpoint: float
    packages: Mapping[str, float] = field(default_factory=dict)
    bar: float | None = None
    guarded: bool = False


@dataclass(frozen=True)
class Row:
    """A line of the results' file."""

    name: str
    value: float
    unit: str
    bar: float | None = None
    holds: bool | None = None


@dataclass(frozen=True)
class Evaluation:
    """What was measured; `context` has sizes and likenesses, `signatures` what else fixes the figures."""

    figures: list[Figure]
    context: list[Row]
    signatures: dict[str, str] = field(default_factory=dict)

    def rows(self) -> Iterator[Row]:
        """Yield every value, and how each package's compares with the checkpoint's."""
        for figure in self.figures:
            for who, value in {"checkpoint": figure.checkpoint, **figure.packages}.items():
                holds = None if figure.bar is None else value >= figure.bar
                yield Row(f"{figure.name}, {who}", value, figure.unit, figure.bar, holds)
            for precision, value in figure.packages.items():
                if precision == "fp32":
                    difference = abs(value - figure.checkpoint)
                    holds = difference <= EXACT_TOLERANCE
                    yield Row(f"{figure.name}, fp32 differs by", difference, figure.unit, EXACT_TOLERANCE, holds)
                else:
                    loss, bar = figure.checkpoint - value, INT8_LOSS if figure.guarded else None
                    holds = None if bar is None else loss <= bar
                    yield Row(f"{figure.name}, {precision} loses", loss, figure.unit, bar, holds)
        yield from self.context


def quality_of(evaluation: Evaluation, kind: str) -> tuple[QualitySpec, ...]:
    """Return what was measured of one of the packages."""
    return tuple(
        QualitySpec(measure=one.name, unit=one.unit, value=one.packages[kind], checkpoint=one.checkpoint)
        for one in evaluation.figures
        if kind in one.packages
    )


def show(name: str, evaluation: Evaluation, console: Console) -> None:
    """Print the checkpoint's and the packages' figures side by side, and what doesn't hold."""
    precisions = list(dict.fromkeys(one for figure in evaluation.figures for one in figure.packages))
    table = Table(title=name, caption="PyTorch: the checkpoint; the others: its packages, through the service")
    table.add_column("measure", no_wrap=True)
    for heading in ("PyTorch", *precisions, "asked"):
        table.add_column(heading, justify="right")
    for figure in evaluation.figures:
        values = [figure.checkpoint, *(figure.packages.get(one) for one in precisions), figure.bar]
        table.add_row(f"{figure.name} ({figure.unit})", *("" if one is None else f"{one:.2f}" for one in values))
    console.print(table)
    for row in evaluation.context:
        console.print(f"{row.name}: {row.value:.6g} {row.unit}")
    for measure, signature in evaluation.signatures.items():
        console.print(f"{measure}: {signature}")
    missed = [row for row in evaluation.rows() if row.holds is False]
    for row in missed:
        console.print(f"[bold red]missed[/]  {row.name}: {row.value:.3f} {row.unit}, asked {row.bar}")
    if precisions and not missed:
        console.print(
            f"[green]all bars hold[/]: fp32 within {EXACT_TOLERANCE} of the checkpoint"
            + (f", int8 loses at most {INT8_LOSS}" if "int8" in precisions else "")
        )


def write(name: str, evaluation: Evaluation, directory: Path) -> None:
    """Write `directory`/`name`.json, with the machine and the versions."""
    libraries = (torch, transformers, onnxruntime, sacrebleu)
    versions = {module.__name__: module.__version__ for module in libraries}
    content: dict[str, Any] = {
        "name": name,
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "versions": versions | evaluation.signatures,
        "rows": [asdict(row) for row in evaluation.rows()],
    }
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")

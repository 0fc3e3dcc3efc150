"""What a benchmark found: a table for people, and `build/results/TARGET.json` for machines."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.table import Table

RESULTS = Path("build/results")
LIBRARIES = ("regard", "onnxruntime", "numpy", "torch", "transformers", "ctranslate2", "grpcio", "protobuf", "locust")


@dataclass(frozen=True, slots=True)
class Figure:
    """What every round measured of one thing. `bar` is the median that is asked for, or None.

    It is the least that will do, or the most, as for differences, if it `limits`.
    """

    name: str
    unit: str
    measured: Sequence[float]
    bar: float | None = None
    limits: bool = False

    @property
    def median(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.measured)

    @property
    def holds(self) -> bool | None:
        """Whether the median reaches the bar, or stays below it; None without one."""
        if self.bar is None:
            return None
        return self.median <= self.bar if self.limits else self.median >= self.bar

    @property
    def asked(self) -> str:
        """The bar, in words; empty without one."""
        if self.bar is None:
            return ""
        return f"at {'most' if self.limits else 'least'} {_number(self.bar)}"

    def __str__(self) -> str:
        if len(self.measured) == 1:
            return _number(self.median)
        return f"{_number(self.median)} ({_number(min(self.measured))} to {_number(max(self.measured))})"

    def rows(self) -> list[dict[str, object]]:
        """Return the median with its bar, and the range of the rounds around it if there were several."""
        row: dict[str, object] = {"name": self.name, "value": self.median, "unit": self.unit}
        several = len(self.measured) > 1
        spread = {"lowest round": min(self.measured), "highest round": max(self.measured)} if several else {}
        return [
            row | {"bar": self.bar, "holds": self.holds},
            *(
                row | {"name": f"{self.name}, {end}", "value": value, "bar": None, "holds": None}
                for end, value in spread.items()
            ),
        ]


def write(target: str, figures: Sequence[Figure], *, replacing: str | None = None, **more: object) -> Path:
    """Write `build/results/TARGET.json`, with the machine, the versions and what `more` there is; return the file.

    Rows that are there already go, or only those whose names begin with `replacing`, if it is given; and all, if they
    are of another machine or of other versions.
    """
    file = RESULTS / f"{target}.json"
    conditions = {"machine": machine(), "versions": versions()}
    there = json.loads(file.read_text()) if replacing and file.exists() else {}
    kept = there["rows"] if conditions.items() <= there.items() else []
    rows = [row for row in kept if not row["name"].startswith(replacing)]
    rows += [row for figure in figures for row in figure.rows()]
    content = {"name": target, **conditions, "rows": rows, **more}
    RESULTS.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=2) + "\n")
    return file


def table_of(figures: Sequence[Figure], title: str) -> Table:
    """Return a table of medians, the lowest and highest rounds around them, and the bars."""
    table = Table("", "median (lowest to highest)", "unit", "asked", "holds", title=title)
    for figure in figures:
        verdict = {None: "", True: "[green]yes[/green]", False: "[red]no[/red]"}[figure.holds]
        table.add_row(figure.name, str(figure), figure.unit, figure.asked, verdict)
    return table


def machine() -> dict[str, str | int]:
    """Return what the figures depend on: processor, cores, memory, operating system."""
    processor = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = (line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line)
        processor = next(names, processor)
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": processor,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory_gib),
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that are installed."""
    found = {"python": platform.python_version()}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found


def _number(value: float) -> str:
    if 0 < abs(value) < 0.01:
        return f"{value:.1e}"
    return f"{value:,.0f}" if value >= 20 else f"{value:.2f}"

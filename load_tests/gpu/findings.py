"""What a part of the check found, and how it is written down."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table


@dataclass(frozen=True, slots=True)
class Finding:
    """One figure. `bar` is the most that a difference may be, or the least of anything else; None asks for nothing."""

    name: str
    value: float
    unit: str
    bar: float | None = None

    @property
    def holds(self) -> bool | None:
        """Whether the figure meets the bar; None without one."""
        if self.bar is None:
            return None
        return self.value <= self.bar if self.unit == "difference" else self.value >= self.bar

    @property
    def row(self) -> dict[str, Any]:
        """The figure as a results file has it."""
        return {**asdict(self), "holds": self.holds}


def table_of(findings: Sequence[Finding], device: str) -> Table:
    """Return a table of every figure."""
    table = Table("", "value", "unit", "asked", "holds", title=f"on {device}")
    for each in findings:
        verdict = {None: "", True: "[green]yes[/green]", False: "[red]no[/red]"}[each.holds]
        asked = "" if each.bar is None else f"{'at most' if each.unit == 'difference' else 'at least'} {each.bar:g}"
        table.add_row(
            each.name, f"{each.value:.3g}" if each.value < 100 else f"{each.value:,.0f}", each.unit, asked, verdict
        )
    return table


def write(files: Sequence[Path], content: Mapping[str, Any]) -> None:
    """Write the same results to every file."""
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content, indent=2) + "\n")

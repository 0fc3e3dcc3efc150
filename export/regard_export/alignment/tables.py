"""What a calibration found, as tables for people."""

from __future__ import annotations

from rich import box
from rich.table import Table

from regard_export.alignment.calibration import METHODS, TENSIONS, Calibration


def heads_table(calibration: Calibration) -> Table:
    """Return every head's error rate by itself, at both positions; those that were chosen are marked."""
    table = Table("layer", "head", "output", "input", box=box.SIMPLE_HEAD, title="heads by themselves, AER in %")
    chosen = set(calibration.spec.heads)
    rates: dict[tuple[int, int], dict[str, str]] = {}
    for head, rate in calibration.heads.items():
        mark = "*" if head in chosen else ""
        rates.setdefault((head.layer, head.head), {})[head.position] = f"{100 * rate:.1f}{mark}"
    for (layer, head_number), by_position in rates.items():
        table.add_row(str(layer), str(head_number), by_position["output"], by_position["input"])
    return table


def methods_table(calibration: Calibration) -> Table:
    """Return the error rate of the chosen heads' mean for every method and tension."""
    table = Table("method", *(f"tension {tension:g}" for tension in TENSIONS), box=box.SIMPLE_HEAD)
    table.title = "the mean of those marked *, AER in %"
    spec = calibration.spec
    for method in METHODS:
        marks = ["*" if (method, tension) == (spec.method, spec.tension) else "" for tension in TENSIONS]
        rates = [calibration.methods[method, tension] for tension in TENSIONS]
        table.add_row(method, *(f"{100 * rate:.1f}{mark}" for rate, mark in zip(rates, marks, strict=True)))
    return table

"""`make parity`: every family and every classic, through the engine, against eager PyTorch. One table.

Each row is a small checkpoint of real classes, with random weights that let attention peak, exported
as a user exports it. Writes `build/results/parity.json` and `tests/parity/table.md`; ends with 1 if a
row fails.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog
import transformers
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from tests.export.blueprints import CLASSICS, peaked
from tests.export.families import FAMILIES, LANGUAGES, UNLISTED, Save

from load_tests.peers.results import Figure, write
from regard.manifest import Package, load_package
from regard_export.languages import ANY_LANGUAGES
from regard_export.modules import export_module
from regard_export.package import PARITY_FILE, Options, export

from .eager import Eager, EagerCheckpoint, EagerModule
from .proof import BATCH, HYPOTHESES, LENGTHS, STEPS, Proof, prove

TABLE = Path(__file__).with_name("table.md")
TOLERANCE = 1e-4
PEAK = 0.2
KINDS = ("encoder self", "prompt self", "decoder self", "decoder cross")

Make = Callable[[Path], tuple[Package, Eager]]
"""Exports a model into a directory; returns its package and its eager self."""

console = Console(width=None if sys.stdout.isatty() else 150)


def from_checkpoint(save: Save, name: str, at: Path) -> tuple[Package, Eager]:
    """Export a checkpoint."""
    checkpoint = save(at / "checkpoint")
    options = Options(name="model", languages=LANGUAGES.get(name, ANY_LANGUAGES))
    package = load_package(export(checkpoint, at / "models", options))
    return package, EagerCheckpoint(checkpoint, package.manifest)


def from_classic(name: str, at: Path) -> tuple[Package, Eager]:
    """Export a classic, with random weights."""
    blueprint = peaked(name)
    return load_package(export_module(blueprint, at / "models", Options(name="model"))), EagerModule(blueprint)


ROWS: dict[str, Make] = {
    **{name: partial(from_checkpoint, save, name) for name, save in FAMILIES.items()},
    **{f"{name} (in no list)": partial(from_checkpoint, save, name) for name, save in UNLISTED.items()},
    **{f"classic: {name}": partial(from_classic, name) for name in CLASSICS},
}


@dataclass(frozen=True)
class Row:
    """A row of the certificate: what was proven, or why nothing was."""

    name: str
    proof: Proof
    failure: str = ""

    @property
    def figures(self) -> list[Figure]:
        """What was measured, and what is asked of it."""
        if self.failure:
            return [Figure(f"{self.name}: proven", "rows", [0], 1.0)]
        figures = [
            Figure(f"{self.name}: {what}", "difference", [worst], TOLERANCE, limits=True)
            for what, worst in self.proof.differences.items()
        ]
        if self.proof.peaks:
            figures.append(Figure(f"{self.name}: median largest weight", "weight", [self.proof.peak], PEAK))
        if self.proof.tokens:
            figures += [
                Figure(f"{self.name}: tokens compared", "tokens", [self.proof.tokens]),
                Figure(f"{self.name}: continuations that tie", "continuations", [self.proof.ties]),
                Figure(f"{self.name}: continuations that differ", "continuations", [self.proof.strays], 0, limits=True),
                Figure(f"{self.name}: batches that joined in mid-run", "batches", [self.proof.joined], 1.0),
            ]
        return figures

    @property
    def holds(self) -> bool:
        """Whether nothing misses what is asked."""
        return all(figure.holds is not False for figure in self.figures)

    @property
    def reasons(self) -> list[str]:
        """Why it fails."""
        if self.failure:
            return [self.failure]
        return [f"{one.name}: {one}, asked: {one.asked}" for one in self.figures if one.holds is False]

    @property
    def cells(self) -> list[str]:
        """The row of the table: name, logits, tokens, each kind of attention, the median largest weight."""
        if self.failure:
            return [self.name, self.failure, *[""] * (len(KINDS) + 2)]
        shown = {what: f"{worst:.1e}" for what, worst in self.proof.differences.items()}
        tokens = f"{self.proof.tokens:,} equal" if self.proof.tokens else ""
        tokens += f", {self.proof.ties} tied" * bool(self.proof.ties)
        tokens += f", {self.proof.strays} differ" * bool(self.proof.strays)
        peak = f"{self.proof.peak:.2f}" if self.proof.peaks else ""
        return [self.name, shown["logits"], tokens, *(shown.get(kind, "") for kind in KINDS), peak]


HEADINGS = ("", "logits", "tokens", *(f"{kind}-attention" for kind in KINDS), "median largest weight")


def certify(name: str) -> Row:
    """Export one row's model and prove it; whatever goes wrong is the row's failure."""
    with tempfile.TemporaryDirectory() as scratch:
        try:
            package, eager = ROWS[name](Path(scratch))
            proof = prove(package, eager)
        except Exception as error:  # the other rows are to be seen, too
            reason = (str(error).strip().splitlines() or [""])[0]
            return Row(name, Proof(), f"{type(error).__name__}: {reason}")
        noted = json.loads(package.path(PARITY_FILE).read_text())["max_abs_difference"]
        answer = "embeddings" if package.manifest.similarity else "logits"
        proof.note(answer, noted[answer])
        return Row(name, proof)


def main() -> int:
    """Certify all rows, or those that are named; return 1 if any fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"certify these only, of: {', '.join(ROWS)}")
    names = parser.parse_args().rows
    if unknown := set(names) - ROWS.keys():
        parser.error(f"no row is called {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    warnings.filterwarnings("ignore")
    rows = _certify_all(names or list(ROWS))
    console.print(_table(rows))
    figures = [figure for row in rows for figure in row.figures]
    console.print(f"written to {write('parity', figures)}")
    if not names:
        TABLE.write_text(_markdown(rows))
        console.print(f"and to {TABLE.relative_to(Path.cwd())}")
    return 0 if all(row.holds for row in rows) else 1


def _certify_all(names: Sequence[str]) -> list[Row]:
    """Certify one row after the other, and say how far it is."""
    rows = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=len(names))
        for name in names:
            progress.update(task, description=escape(name))
            started = time.monotonic()
            row = certify(name)
            rows.append(row)
            verdict = "[green]holds[/green]" if row.holds else "[red]fails[/red]"
            progress.console.print(f"{verdict}  {escape(name)}  [dim]{time.monotonic() - started:.0f} s[/dim]")
            for reason in row.reasons:
                progress.console.print(f"       {reason}", style="red", markup=False)
            progress.advance(task)
    return rows


def _table(rows: Sequence[Row]) -> Table:
    """Return the table for people, green where a row holds and red where it fails."""
    table = Table(title="largest absolute differences from eager PyTorch, in fp32")
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading in ("", "tokens") else "right")
    for row in rows:
        table.add_row(*map(escape, row.cells), style="green" if row.holds else "red")
    return table


def _markdown(rows: Sequence[Row]) -> str:
    """Return the table for the repository."""
    proven = sum(row.holds for row in rows)
    lines = [
        "# Parity",
        "",
        f"{proven} of {len(rows)} rows hold. `make parity` writes this page: every family, exported from a small",
        "checkpoint of its real classes with random weights, runs in Regard's engine and is compared with eager",
        "PyTorch in fp32. The figures are the largest absolute differences; a row holds if all are at most 1e-4, no",
        "token differs where the eager model sees more than 1e-4 between two, and attention peaks: the median of the",
        f"largest weights of all queries, of the kind of attention where it is least, is {PEAK} or more.",
        "",
        f"Asked are sources of {min(LENGTHS)} to {max(LENGTHS)} tokens, or images, alone and {len(LENGTHS)} at a time",
        f"of an engine with room for {BATCH}, so that texts are padded and others join in the middle of a run; each is",
        f"continued by up to {max(STEPS)} tokens, greedily and with {max(HYPOTHESES)} beams. Logits are those of the",
        "proof in the package, and the log-probabilities of the 32 likeliest tokens of every step in the engine.",
        "",
        f"| {' | '.join(HEADINGS)} |",
        f"| --- | {' | '.join('---:' for _ in HEADINGS[1:])} |",
        *(f"| {' | '.join(row.cells)} |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())

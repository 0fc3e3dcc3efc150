"""The commands of `regard-export` beside the export itself: `inspect`, `list` and `verify`."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from typer.core import TyperGroup

OUT = Console(highlight=False)
ERR = Console(stderr=True, highlight=False)


class Stopped(KeyboardInterrupt):
    """The process was told to end, by a signal other than that of Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextmanager
def stoppable() -> Iterator[None]:
    """Let the signals that end a process raise `Stopped`, as Ctrl-C raises its base, so that all is tidied up."""

    def stop(number: int, _: object) -> NoReturn:
        raise Stopped(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def refuse_interrupted(stop: KeyboardInterrupt) -> NoReturn:
    """Say that nothing was written, and exit as shells have it: 128 and the signal's number."""
    refuse("interrupted; nothing was written", 128 + (stop.number if isinstance(stop, Stopped) else signal.SIGINT))


_Package = Annotated[Path, typer.Argument(help="The directory of the package: NAME/VERSION below a models directory.")]


class ExportByDefault(TyperGroup):
    """Takes `regard-export CHECKPOINT` for `regard-export export CHECKPOINT`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the command in front of arguments that name none."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["export", *args]
        rest: list[str] = super().parse_args(ctx, args)
        return rest


def tell(message: str) -> None:
    """Print an error."""
    ERR.print("[bold red]error:[/bold red]", end=" ")
    ERR.print(message, markup=False, soft_wrap=True)


def refuse(message: str, code: int = 2) -> NoReturn:
    """Print an error and exit."""
    tell(message)
    raise typer.Exit(code)


def inspect(package: _Package) -> None:
    """Print a package's card: task, limits, attention, operators, parity, files.

    Exits with 1 if the package is damaged.
    """
    from regard_export.card import card

    OUT.print(card(load(package)))


def list_families() -> None:
    """List the kinds of models that can be exported, task by task.

    Others that follow Transformers' conventions can be tried: an export proves itself or is refused.
    """
    from rich import box
    from rich.table import Table

    with ERR.status("loading Transformers"):
        from regard_export.families import FAMILIES
        from regard_export.families.proven import PROVEN

    table = Table("task", "families", box=box.SIMPLE_HEAD, leading=1)
    for task, kinds in PROVEN.items():
        table.add_row(task.value, ", ".join(kind + "*" * (kind in FAMILIES) for kind in kinds))
    OUT.print(table)
    OUT.print("Named as config.json does, by model_type. * has an adapter in regard_export/families.", style="dim")


def verify(
    package: _Package,
    against: Annotated[
        Path | None,
        typer.Option(help="The checkpoint that it was made from: compare them again, as the export did."),
    ] = None,
    source_language: Annotated[
        str | None, typer.Option(help="The --source-language of the export, if it had one.")
    ] = None,
    target_language: Annotated[
        str | None, typer.Option(help="The --target-language of the export, if it had one.")
    ] = None,
) -> None:
    """Check a package: checksums, manifest, graphs; and its parity, against its checkpoint.

    Exits with 0 if all is well, 1 if something is wrong with the package, and 2 if it could not be
    compared because of something else, such as another checkpoint.

    [bold]Example[/bold]
    [cyan]regard-export verify models/demo-en-fr/1 --against export/checkpoints/demo-en-fr[/cyan]
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    loaded = load(package)
    name = f"{loaded.manifest.name}/{loaded.manifest.version}"
    with ERR.status("loading PyTorch and Transformers"):
        from regard_export.card import parity_of, parity_table
        from regard_export.errors import ExportError
        from regard_export.languages import Languages
        from regard_export.verification import compare, faults

    found = list(faults(loaded))
    if found:
        refuse(f"{name}: " + "; ".join(found), 1)
    OUT.print(f"{name}: {len(loaded.manifest.files)} files and {len(loaded.manifest.graphs)} graphs are as listed")
    if against is None:
        return
    try:
        with ERR.status(f"comparing with {against}"):
            comparison = compare(loaded, against, Languages(source_language, target_language))
    except ExportError as error:
        refuse(str(error))
    if comparison.report is not None:
        OUT.print(parity_table(parity_of(loaded) or comparison.report, comparison.report))
    if comparison.fault is not None:
        refuse(f"{name}: {comparison.fault}", 1)
    judged = comparison.report is not None and comparison.report["tolerance"] is not None
    OUT.print(f"{name} equals {against}" if judged else f"{name} strays so far from {against}: int8 isn't judged")


def load(directory: Path) -> Any:
    """Return the package in a directory, or refuse it and exit."""
    from regard.manifest import MANIFEST_FILE, PackageError, load_package

    if not (directory / MANIFEST_FILE).is_file():
        inside = sorted(path.parent for path in directory.glob(f"**/{MANIFEST_FILE}"))[:3] if directory.is_dir() else []
        hint = f"; did you mean {', '.join(map(str, inside))}?" if inside else ""
        refuse(f"{directory} is no package: it has no {MANIFEST_FILE}{hint}")
    try:
        return load_package(directory.resolve())
    except PackageError as error:
        refuse(str(error), 1)

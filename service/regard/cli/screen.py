"""Where the command line writes: answers on stdout, everything about them on stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

OUT = Console(highlight=False)
ERR = Console(stderr=True, highlight=False)


_NAMES = {
    "file": "the sound",
    "samples": "the sound",
    "image": "the image",
    "caption": "the caption",
    "target": "the translation",
}
"""What the command line calls the fields of an input that are no texts."""


def error(message: str) -> None:
    """Say on one line what is wrong and what to do next."""
    ERR.print(Text.assemble(("error: ", "bold red"), message), soft_wrap=True)


def in_words(message: str, field: str) -> str:
    """Return a message about one input, which the command line calls by no index."""
    if field.startswith("inputs[") and field.endswith((".question", ".context")):
        return message.replace(field, f"the {field.rpartition('.')[2]}").replace(field.partition(".")[0] + ".", "the ")
    if field.startswith(("texts[", "inputs[", "pairs[")):
        return message.replace(field, _NAMES.get(field.rpartition(".")[2], "the text"))
    return message.replace(field, "the image") if field.startswith("images[") else message


def refuse(message: str) -> NoReturn:
    """End the command, which was called wrongly."""
    error(message)
    raise typer.Exit(2)


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Callable[[], None]]:
    """Give a function to call after each of `total` things; it moves a bar where a person sees one.

    There is none if stderr is no terminal, or if stdout is one and the answers show the progress.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("[dim]left"),
        TimeRemainingColumn(),
    )
    shown = ERR.is_terminal and not OUT.is_terminal
    with Progress(*columns, console=ERR, transient=True, redirect_stdout=False, disable=not shown) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)


@contextmanager
def streamed_line(*, as_json: bool = False) -> Iterator[Callable[[str], None]]:
    """Give a function that prints a piece of an answer as it comes; the line ends with the answer, or where it breaks.

    What fails before its first piece prints nothing. There is no line to end where records are printed instead.
    """
    begun = False

    def show(piece: str) -> None:
        nonlocal begun
        begun = begun or bool(piece)
        print(piece, end="", flush=True)

    try:
        yield show
        begun = not as_json
    finally:
        if begun:
            print(flush=True)

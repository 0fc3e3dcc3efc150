"""The commands of `regard`, and how each of them fails: in one line that says what to do next."""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress
from typing import Annotated

import typer

from regard.cli.answer import answer
from regard.cli.caption import caption
from regard.cli.classify import classify
from regard.cli.classify_tokens import classify_tokens
from regard.cli.compare import compare
from regard.cli.complete import complete
from regard.cli.demo.command import demo
from regard.cli.explain import explain
from regard.cli.help import Command
from regard.cli.models import models
from regard.cli.score import score
from regard.cli.screen import error, in_words
from regard.cli.serve import serve
from regard.cli.transcribe import transcribe
from regard.cli.translate import translate
from regard.errors import RegardError

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF, errno.EPIPE)
"""What a write fails with; other errors of the system are none of the output."""

app = typer.Typer(
    name="regard",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        from regard import __version__

        print(f"regard {__version__}")
        raise typer.Exit


@app.callback()
def regard(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Serve attention models, and show what they attend to.

    [bold]Examples[/bold]
    [cyan]regard serve --models models/[/cyan]
    [cyan]regard translate "They grow oranges in California." --attention[/cyan]
    [cyan]regard caption photo.jpg --attention[/cyan]
    [cyan]regard classify "book me a flight to paris" --attention[/cyan]
    [cyan]regard explain class "book me a flight to paris" --faithfulness[/cyan]
    [cyan]regard answer "Where does Sarah live?" --context "Sarah lives in London."[/cyan]
    [cyan]regard compare photo.jpg -t "a photo of a cat" -t "a photo of a dog"[/cyan]
    [cyan]regard complete "The capital of France is"[/cyan]
    [cyan]regard transcribe speech.wav --timestamps[/cyan]
    """


app.command(cls=Command)(translate)
app.command(cls=Command)(score)
app.command(cls=Command)(caption)
app.command(cls=Command)(classify)
app.command(cls=Command)(classify_tokens)
app.command(cls=Command)(answer)
app.command(cls=Command)(compare)
app.command(cls=Command)(complete)
app.command(cls=Command)(transcribe)
app.add_typer(explain)
app.command(cls=Command)(models)
app.command(cls=Command)(serve)
app.command(cls=Command, hidden=True)(demo)


def main() -> None:
    """Run a command. Whatever Regard raises on purpose becomes a line on stderr and exit code 1.

    So does output that can't be written. What the encoding of stdout lacks becomes a question mark.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    try:
        try:
            app()
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except RegardError as raised:
        error(_advice(raised))
        sys.exit(1)
    except OSError as raised:
        if raised.errno not in UNWRITABLE:
            raise
        if raised.errno != errno.EPIPE:
            error(f"can't write the output: {raised.strerror}")
        _drop_output()
        sys.exit(1)


def _drop_output() -> None:
    """Let what is left of the output go nowhere: Python tries once more to write it as it ends."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _advice(raised: RegardError) -> str:
    from regard.client import ServerUnreachable

    if isinstance(raised, ServerUnreachable):
        from regard.cli.reaching import advice_on

        return f"{raised.message}: {advice_on(raised.message)}"
    return in_words(raised.message, raised.field)

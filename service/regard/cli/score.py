"""`regard score`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regard.cli import options
from regard.cli.screen import error, in_words, refuse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from regard.client import TranslationScore


def score(
    text: Annotated[str | None, typer.Argument(help="The text. Without it, pairs come from --file or stdin.")] = None,
    target: Annotated[str | None, typer.Argument(help="Its translation, whoever made it.")] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file", "-f", metavar="FILE", help="Read a text and, after a tab, its translation a line from FILE, or -."
        ),
    ] = None,
    as_json: options.JsonOption = False,
    language: Annotated[
        str, typer.Option("--target-language", metavar="TOKEN", help="The language of the translations.")
    ] = "",
    model: options.ModelOption = "",
    truncate: options.TruncateOption = False,
    priority: options.PriorityOption = None,
    server: options.ServerOption = options.DEFAULT_SERVER,
    timeout_s: options.TimeoutOption = 60.0,
) -> None:
    """Tell how likely a model finds a translation that somebody made.

    One pair gets its log-probability and its perplexity, which is 1 where the model is sure of every token, and each
    token with the natural logarithm of its probability. A line of a file gets the first two, tab between.

    [bold]Examples[/bold]
    [cyan]regard score "The house is old." "La maison est vieille."[/cyan]
    [cyan]regard score --file pairs.tsv | sort -n -k2 | tail[/cyan]
    """
    from regard.client import Client, Failure, ScoreTranslationOptions

    if (text is None) != (target is None) or (text is not None and file is not None):
        refuse("give a text and its translation, or a file of both with --file")
    if text is None and file is None and sys.stdin.isatty():
        refuse(
            "give a text and its translation, name a file with --file, or pipe lines into stdin; --help has examples"
        )
    name, version = options.name_and_version(model)
    wanted = ScoreTranslationOptions(model=name, version=version, truncate=truncate, target_language=language)
    if priority:
        wanted["priority"] = priority
    pairs = [(text, target)] if text is not None and target is not None else list(_pairs(file))
    failures = 0
    with Client(server, timeout_s=timeout_s, requests_in_flight=options.REQUESTS_IN_FLIGHT) as client:
        for place, (pair, scored) in enumerate(zip(pairs, client.score_translation_each(pairs, **wanted), strict=True)):
            if isinstance(scored, Failure):
                failures += 1
                where = f"line {place + 1}: " if text is None else ""
                error(f"{where}{in_words(scored.message, scored.field)} ({scored.code_name})")
            if as_json:
                from regard.cli.records import answer_record, print_record

                print_record({**answer_record(pair[0], scored), "target": pair[1]})
            elif not isinstance(scored, Failure):
                _show(scored, alone=text is not None)
    if failures:
        raise typer.Exit(1)


def _show(scored: TranslationScore, *, alone: bool) -> None:
    print(f"{scored.log_probability:.4f}\t{scored.perplexity:.4f}", flush=True)
    if alone:
        for token in scored.tokens:
            print(f"{token.log_probability:.4f}\t{token.token}")


def _pairs(file: Path | None) -> Iterator[tuple[str, str]]:
    """Yield the pairs of a file or of stdin; a line that is none ends the command."""
    from regard.cli.lines import open_lines

    with open_lines(file) as lines:
        for line in lines:
            text, tab, target = line.text.partition("\t")
            if line.problem or not tab:
                problem = line.problem or "no text and translation with a tab between"
                refuse(f"line {line.number} of {lines.name} is {problem}")
            yield text, target

"""`regard score`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regard.cli import options
from regard.cli.screen import refuse

if TYPE_CHECKING:
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
    token with the natural logarithm of its probability. A line of a file gets the first two, tab between; one that is
    blank or fails gets an empty line.

    [bold]Examples[/bold]
    [cyan]regard score "The house is old." "La maison est vieille."[/cyan]
    [cyan]regard score --file pairs.tsv | sort -n -k2 | tail[/cyan]
    """
    from regard.client import Client, ScoreTranslationOptions

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
    with Client(
        server, timeout_s=timeout_s, requests_in_flight=options.REQUESTS_IN_FLIGHT, patience_s=timeout_s
    ) as client:
        if text is None or target is None:
            from regard.cli.answers import answer_lines

            answer_lines(
                file,
                lambda lines: client.score_translation_each(map(_pair, lines), **wanted),
                _show,
                as_json=as_json,
                problem_of=lambda line: "" if "\t" in line else "no text and translation with a tab between",
                record_of=lambda line, scored: _record(*_pair(line), scored),
            )
            return
        scored = client.score_translation(text, target, **wanted)
    if as_json:
        from regard.cli.records import print_record

        print_record(_record(text, target, scored))
    else:
        _show(scored)
        for token in scored.tokens:
            print(f"{token.log_probability:.4f}\t{token.token}")


def _pair(line: str) -> tuple[str, str]:
    text, _, target = line.partition("\t")
    return text, target


def _record(text: str, target: str, scored: object) -> dict[str, Any]:
    from regard.cli.records import answer_record

    return {**answer_record(text, scored), "target": target}


def _show(scored: TranslationScore) -> None:
    print(f"{scored.log_probability:.4f}\t{scored.perplexity:.4f}", flush=True)

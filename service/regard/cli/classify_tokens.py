"""`regard classify-tokens`."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from regard.cli import options
from regard.cli.attention import ATTENTION
from regard.cli.flags import taking

if TYPE_CHECKING:
    from regard.client import AttentionOptions, TokenClassification


@taking(ATTENTION)
def classify_tokens(
    text: Annotated[
        str | None, typer.Argument(help="The text. Without it, lines are read from --file or stdin.")
    ] = None,
    file: options.FileOption = None,
    as_json: options.JsonOption = False,
    aggregation: Annotated[
        Literal["none", "simple", "first", "average", "max"],
        typer.Option("--aggregation", help="How tokens are put together to entities; none prints every token."),
    ] = "simple",
    model: options.ModelOption = "",
    truncate: options.TruncateOption = False,
    priority: options.PriorityOption = None,
    server: options.ServerOption = options.DEFAULT_SERVER,
    timeout_s: options.TimeoutOption = 60.0,
    report: options.ReportOption = None,
    *,
    attention: AttentionOptions | None,
) -> None:
    """Find the entities of a text, or of each line of a file or of stdin.

    One text gets a line for each entity: its label, its score, where it stands, and what it says. A line
    of several gets its entities on one line, LABEL=TEXT, with tabs between them. With --aggregation none, tokens
    are printed in the place of entities. With --attention, words are highlighted by the weight that the model's
    first token gives them. With --report, a page for a browser shows it instead, for every layer, head and word.

    [bold]Examples[/bold]
    [cyan]regard classify-tokens "Sarah lives in London"[/cyan]
    [cyan]regard classify-tokens "Sarah lives in London" --aggregation max[/cyan]
    [cyan]regard classify-tokens "Sarah lives in London" --report attention.html[/cyan]
    [cyan]regard classify-tokens --file letters.txt --json | jq .entities[/cyan]
    """
    from regard.cli.report import Report
    from regard.client import ClassifyTokensOptions, Client

    options.has_one_text(text, file, sys.stdin.isatty())
    name, version = options.name_and_version(model)
    wanted = ClassifyTokensOptions(model=name, version=version, truncate=truncate, aggregation=aggregation)
    if priority:
        wanted["priority"] = priority
    if attention:
        wanted["attention"] = attention
    by_tokens = aggregation == "none"
    with (
        Client(
            server,
            timeout_s=timeout_s,
            inputs_per_request=options.inputs_per_request(attention),
            requests_in_flight=options.REQUESTS_IN_FLIGHT,
            patience_s=timeout_s,
        ) as client,
        Report(report) as page,
    ):
        if text is None:
            from regard.cli.answers import answer_lines

            answer_lines(
                file,
                lambda texts: page.keep_each(texts, lambda kept: client.classify_tokens_each(kept, **wanted)),
                partial(_show_line, by_tokens=by_tokens),
                as_json=as_json,
            )
            return
        found = page.keep(text, client.classify_tokens(text, **wanted))
        if as_json:
            from regard.cli.records import answer_record, print_record

            print_record(answer_record(text, found))
        else:
            every_layer = bool(attention and attention.layers)
            _show(found, by_tokens=by_tokens, every_layer=every_layer, drawn=report is None)


def _show(found: TokenClassification, *, by_tokens: bool, every_layer: bool, drawn: bool) -> None:
    from regard.cli.screen import OUT
    from regard.cli.views import highlighted_view

    for label, score, start, end, text in _spans(found, by_tokens=by_tokens):
        print(f"{label}\t{score:.4f}\t{start}-{end}\t{text}")
    if found.attention is not None and drawn:
        OUT.print(highlighted_view(found.attention, every_layer=every_layer))


def _show_line(found: TokenClassification, *, by_tokens: bool) -> None:
    spans = _spans(found, by_tokens=by_tokens)
    print("\t".join(f"{label}={text}" for label, _, _, _, text in spans), flush=True)


def _spans(found: TokenClassification, *, by_tokens: bool) -> list[tuple[str, float, int, int, str]]:
    """Return the label, the score, the start, the end and the text of every token, or of every entity."""
    if by_tokens:
        return [
            (one.classes[0].label, one.classes[0].probability, one.start, one.end, one.token) for one in found.tokens
        ]
    return [(one.label, one.score, one.start, one.end, one.text) for one in found.entities]

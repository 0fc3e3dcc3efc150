"""`regard classify`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from regard.cli import options

if TYPE_CHECKING:
    from regard.client import Classification


def classify(
    text: Annotated[
        str | None, typer.Argument(help="The text. Without it, lines are read from --file or stdin.")
    ] = None,
    file: options.FileOption = None,
    as_json: options.JsonOption = False,
    top_k: Annotated[int, typer.Option("--top-k", min=1, metavar="N", help="How many classes to return.")] = 3,
    model: options.ModelOption = "",
    truncate: options.TruncateOption = False,
    server: options.ServerOption = options.DEFAULT_SERVER,
    timeout_s: options.TimeoutOption = 60.0,
    attention: options.AttentionOption = False,
    layer: options.LayerOption = None,
    head: options.HeadOption = None,
    reduction: options.ReductionOption = None,
    granularity: options.GranularityOption = None,
) -> None:
    """Classify a text, or each line of a file or of stdin.

    One text gets its likeliest classes as bars. A line gets its likeliest class and, after a tab,
    its probability; if it is outside the model's classes, "out_of_scope" follows after another tab.
    With --attention, words are highlighted by the weight that the model's first token gives them.

    [bold]Examples[/bold]
    [cyan]regard classify "book me a flight to paris"[/cyan]
    [cyan]regard classify "book me a flight to paris" --attention --top-k 5[/cyan]
    [cyan]regard classify --file utterances.txt | cut -f1 | sort | uniq -c[/cyan]
    [cyan]regard classify "cancel it" --json | jq .classes[/cyan]
    """
    from regard.client import ClassifyOptions, Client

    asked = options.attention_options(attention, layer, head, reduction, granularity)
    options.has_one_text(text, file, sys.stdin.isatty())
    name, version = options.name_and_version(model)
    wanted = ClassifyOptions(model=name, version=version, truncate=truncate, top_k=top_k)
    if asked:
        wanted["attention"] = asked
    with Client(
        server,
        timeout_s=timeout_s,
        inputs_per_request=options.LINES_PER_REQUEST,
        requests_in_flight=options.REQUESTS_IN_FLIGHT,
    ) as client:
        if text is None:
            from regard.cli.answers import answer_lines

            answer_lines(
                file,
                lambda texts: client.classify_each(texts, **wanted),
                lambda answer: _show(answer, every_layer=bool(layer)) if asked else _show_line(answer),
                as_json=as_json,
            )
        elif as_json:
            from regard.cli.records import answer_record, print_record

            print_record(answer_record(text, client.classify(text, **wanted)))
        else:
            _show(client.classify(text, **wanted), every_layer=bool(layer))


def _show(classification: Classification, *, every_layer: bool) -> None:
    from regard.cli.screen import OUT
    from regard.cli.views import class_bars, classification_view

    if classification.attention is None:
        OUT.print(class_bars(classification))
    else:
        OUT.print(classification_view(classification, every_layer=every_layer))


def _show_line(classification: Classification) -> None:
    likeliest = classification.classes[0]
    columns = [likeliest.label, f"{likeliest.probability:.4f}", *(["out_of_scope"] * classification.out_of_scope)]
    print("\t".join(columns), flush=True)

"""`regard classify`."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regard.cli import options
from regard.cli.attention import ATTENTION
from regard.cli.flags import taking
from regard.cli.interventions import CHANGES
from regard.cli.screen import refuse

if TYPE_CHECKING:
    from regard.client import AttentionOptions, Classification, Intervention


@taking(ATTENTION, CHANGES)
def classify(
    text: Annotated[
        str | None, typer.Argument(help="The text. Without it, lines are read from --file or stdin.")
    ] = None,
    pair: Annotated[
        str | None, typer.Option("--pair", help="The second of two texts, for a model trained on pairs.")
    ] = None,
    image: Annotated[
        list[Path] | None,
        typer.Option("--image", metavar="FILE", help="An image file instead: JPEG, PNG, WebP or GIF; may be repeated."),
    ] = None,
    file: options.FileOption = None,
    as_json: options.JsonOption = False,
    top_k: Annotated[
        int | None,
        typer.Option("--top-k", min=1, metavar="N", help="How many classes to return; 5, or all that there are."),
    ] = None,
    model: options.ModelOption = "",
    truncate: options.TruncateOption = False,
    priority: options.PriorityOption = None,
    server: options.ServerOption = options.DEFAULT_SERVER,
    timeout_s: options.TimeoutOption = 60.0,
    report: options.ReportOption = None,
    *,
    attention: AttentionOptions | None,
    interventions: list[Intervention],
) -> None:
    """Classify a text or an image, or each of several images, or each line of a file or of stdin.

    One text or image gets its likeliest classes as bars. A line gets its likeliest class and, after a tab,
    its probability; if it is outside the model's classes, "out_of_scope" follows after another tab. So does
    each of several images, behind its file's name; one that can't be read is told of on stderr.
    With --attention, words are highlighted by the weight that the model's first token gives them, and an image
    is lit where it looks. With --report, a page for a browser shows it instead, for every layer, head and word.
    --knock-out, --ban and --window ask what the model would say if it looked at less.

    [bold]Examples[/bold]
    [cyan]regard classify "book me a flight to paris"[/cyan]
    [cyan]regard classify "book me a flight to paris" --attention --top-k 5[/cyan]
    [dim]# through all layers[/dim]
    [cyan]regard classify "book me a flight to paris" --attention-reduction rollout[/cyan]
    [cyan]regard classify "book me a flight to paris" --report attention.html[/cyan]
    [dim]# without a look at the word[/dim]
    [cyan]regard classify "book me a flight to paris" --ban flight[/cyan]
    [cyan]regard classify --image photo.jpg --attention[/cyan]
    [cyan]regard classify --file utterances.txt | cut -f1 | sort | uniq -c[/cyan]
    [cyan]regard classify "cancel it" --json | jq .classes[/cyan]
    """
    from regard.cli.report import Report
    from regard.client import ClassifyOptions, Client

    if image and (text is not None or file is not None):
        refuse("--image is instead of a text or --file: give one of them")
    if not image:
        options.has_one_text(text, file, sys.stdin.isatty())
    if pair is not None and text is None:
        refuse("--pair is the second of two texts: give the first as the argument")
    given = text if text is None or pair is None else (text, pair)
    name, version = options.name_and_version(model)
    wanted = ClassifyOptions(model=name, version=version, truncate=truncate)
    if top_k is not None:
        wanted["top_k"] = top_k
    if attention:
        wanted["attention"] = attention
    if interventions:
        wanted["interventions"] = interventions
    if priority:
        wanted["priority"] = priority
    drawn = attention is not None and report is None
    show = partial(_show, every_layer=bool(attention and attention.layers), drawn=drawn)
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
        if image:
            from regard.cli.answers import answer_files

            answer_files(
                image,
                "images",
                lambda contents: page.keep_each(contents, lambda kept: client.classify_each(kept, **wanted)),
                show if drawn or len(image) == 1 else _show_line,
                as_json=as_json,
            )
        elif text is None or given is None:
            from regard.cli.answers import answer_lines

            answer_lines(
                file,
                lambda texts: page.keep_each(texts, lambda kept: client.classify_each(kept, **wanted)),
                show if drawn else _show_line,
                as_json=as_json,
            )
        elif as_json:
            from regard.cli.records import answer_record, print_record

            print_record(answer_record(text, page.keep(given, client.classify(given, **wanted))))
        else:
            show(page.keep(given, client.classify(given, **wanted)))


def _show(
    classification: Classification, name: str = "", image: bytes | None = None, *, every_layer: bool, drawn: bool
) -> None:
    from regard.cli.screen import OUT
    from regard.cli.views import class_bars, classification_view

    if name:
        OUT.print(name, style="dim", markup=False, soft_wrap=True)
    if classification.attention is None or not drawn:
        OUT.print(class_bars(classification))
    else:
        OUT.print(classification_view(classification, image, every_layer=every_layer))


def _show_line(classification: Classification, name: str = "", image: bytes | None = None) -> None:
    likeliest = classification.classes[0]
    columns = [likeliest.label, f"{likeliest.probability:.4f}", *(["out_of_scope"] * classification.out_of_scope)]
    print("\t".join([name, *columns] if name else columns), flush=True)

"""`regard translate`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from regard.cli import options
from regard.cli.screen import refuse

if TYPE_CHECKING:
    from regard.client import Client, TranslateOptions, Translation


def translate(
    text: Annotated[
        str | None, typer.Argument(help="The text. Without it, lines are read from --file or stdin.")
    ] = None,
    file: options.FileOption = None,
    as_json: options.JsonOption = False,
    stream: Annotated[bool, typer.Option("--stream", help="Print each token as it is made.")] = False,
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
    """Translate a text, or each line of a file or of stdin.

    With --attention, a grid shows which source words the model looked at while it wrote each word.

    [bold]Examples[/bold]
    [cyan]regard translate "They grow oranges in California."[/cyan]
    [cyan]regard translate "They grow oranges in California." --attention[/cyan]
    [cyan]regard translate "How are you?" --layer 0 --reduction none[/cyan]   each head of layer 0
    [cyan]regard translate --file english.txt > french.txt[/cyan]
    [cyan]cat english.txt | regard translate --json | jq -r .text[/cyan]
    """
    from regard.client import Client, TranslateOptions

    asked = options.attention_options(attention, layer, head, reduction, granularity)
    single = options.has_one_text(text, file, sys.stdin.isatty())
    if stream and not single:
        refuse("--stream takes one text; lines are answered as they are done")
    name, version = options.name_and_version(model)
    wanted = TranslateOptions(model=name, version=version, truncate=truncate)
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
                lambda texts: client.translate_each(texts, **wanted),
                lambda answer: _show(answer, every_layer=bool(layer)),
                as_json=as_json,
            )
        elif stream:
            _stream(client, text, wanted, every_layer=bool(layer), as_json=as_json)
        elif as_json:
            from regard.cli.records import answer_record, print_record

            print_record(answer_record(text, client.translate(text, **wanted)))
        else:
            _show(client.translate(text, **wanted), every_layer=bool(layer))


def _show(translation: Translation, *, every_layer: bool) -> None:
    if translation.attention is None:
        print(translation.text, flush=True)
        return
    from regard.cli.screen import OUT
    from regard.cli.views import translation_view

    OUT.print(translation_view(translation, every_layer=every_layer))


def _stream(client: Client, text: str, wanted: TranslateOptions, *, every_layer: bool, as_json: bool) -> None:
    from regard.cli.records import answer_record, plain, print_record
    from regard.client import Translation

    try:
        for event in client.stream_translate(text, **wanted):
            if as_json:
                done = isinstance(event, Translation)
                print_record(answer_record(text, event) if done else {"delta": plain(event)})
            elif not isinstance(event, Translation):
                print(event.text, end="", flush=True)
            elif event.attention is not None:
                print("\n")
                _show(event, every_layer=every_layer)
    finally:
        if not as_json:
            print(flush=True)

"""`regard caption`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regard.cli import options
from regard.cli.attention import ATTENTION
from regard.cli.files import read_file
from regard.cli.flags import taking
from regard.cli.interventions import KNOCK_OUTS
from regard.cli.screen import refuse, streamed_line
from regard.cli.search import SEARCH

if TYPE_CHECKING:
    from regard.client import AttentionOptions, Caption, CaptionOptions, Client, GenerationOptions, Intervention


@taking(ATTENTION, KNOCK_OUTS, SEARCH)
def caption(
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGE...", help="Image files: JPEG, PNG, WebP or GIF.", show_default=False),
    ],
    as_json: options.JsonOption = False,
    stream: Annotated[bool, typer.Option("--stream", help="Print each token as it is made.")] = False,
    model: options.ModelOption = "",
    priority: options.PriorityOption = None,
    server: options.ServerOption = options.DEFAULT_SERVER,
    timeout_s: options.TimeoutOption = 60.0,
    report: options.ReportOption = None,
    *,
    attention: AttentionOptions | None,
    interventions: list[Intervention],
    search: GenerationOptions,
) -> None:
    """Describe an image in words, or each of several.

    Several images get one line each: the file's name and, after a tab, its caption. One that can't be read
    is told of on stderr, and the others are captioned. With --attention, a small picture for each word shows
    where the model looked while it wrote the word. With --report, a page for a browser shows it instead, for
    every layer and head.

    [bold]Examples[/bold]
    [cyan]regard caption photo.jpg[/cyan]
    [cyan]regard caption photo.jpg --attention[/cyan]
    [cyan]regard caption photo.jpg --json --attention-granularity patch --attention-top-k 5[/cyan]
    [cyan]regard caption photo.jpg --report attention.html[/cyan]
    [dim]# without a head of the decoder's look at the image[/dim]
    [cyan]regard caption photo.jpg --knock-out 1.3[/cyan]
    [cyan]regard caption holiday/*.jpg > captions.tsv[/cyan]
    [cyan]regard caption photo.jpg --json | jq -r .text[/cyan]
    """
    from regard.cli.report import Report
    from regard.client import CaptionOptions, Client

    if stream and len(images) > 1:
        refuse("--stream takes one image; several are answered as they are done")
    if stream and report:
        refuse("--stream prints tokens and --report writes a page: give one of them")
    name, version = options.name_and_version(model)
    # mypy takes no supertype's items: an unknown one could have a name of ours, and another type
    wanted = CaptionOptions(model=name, version=version, **search)  # type: ignore[typeddict-item]
    if attention:
        wanted["attention"] = attention
    if interventions:
        wanted["interventions"] = interventions
    if priority:
        wanted["priority"] = priority
    every_layer = bool(attention and attention.layers)
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
        if stream:
            content = read_file(images[0])
            _stream(client, content, wanted, str(images[0]), as_json=as_json, every_layer=every_layer)
        else:
            from regard.cli.answers import answer_files

            answer_files(
                images,
                "images",
                lambda contents: page.keep_each(contents, lambda kept: client.caption_each(kept, **wanted)),
                partial(_show, drawn=attention is not None and report is None, every_layer=every_layer),
                as_json=as_json,
            )


def _show(answer: Caption, name: str, content: bytes, *, drawn: bool, every_layer: bool) -> None:
    """Print every sequence on a line of its own; the attention of the best one is drawn."""
    before = f"{name}\t" if name else ""
    if not drawn:
        print(f"{before}{answer.text}", flush=True)
    else:
        from regard.cli.screen import OUT
        from regard.cli.views import caption_view

        if name:
            OUT.print(name, style="dim")
        OUT.print(caption_view(answer, content, every_layer=every_layer))
    for sequence in answer.further_sequences:
        print(f"{before}{sequence.text}", flush=True)


def _stream(
    client: Client, content: bytes, wanted: CaptionOptions, name: str, *, as_json: bool, every_layer: bool
) -> None:
    from regard.cli.records import answer_record, plain, print_record
    from regard.client import Caption

    with streamed_line(as_json=as_json) as show:
        for event in client.stream_caption(content, **wanted):
            if as_json:
                done = isinstance(event, Caption)
                print_record(answer_record(name, event) if done else {"delta": plain(event)})
            elif not isinstance(event, Caption):
                show(event.text)
            elif event.attention is not None:
                print("\n")
                _show(event, "", content, drawn=True, every_layer=every_layer)

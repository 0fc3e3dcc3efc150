"""`regard complete`."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from regard.cli import options
from regard.cli.attention import ATTENTION
from regard.cli.flags import taking
from regard.cli.screen import refuse, streamed_line
from regard.cli.search import SEARCH

if TYPE_CHECKING:
    from regard.client import AttentionOptions, Client, CompleteOptions, Completion, GenerationOptions


@taking(ATTENTION, SEARCH)
def complete(
    prompt: Annotated[
        str | None, typer.Argument(help="What to go on from. Without it, lines are read from --file or stdin.")
    ] = None,
    file: options.FileOption = None,
    as_json: options.JsonOption = False,
    stream: Annotated[bool, typer.Option("--stream/--no-stream", help="Print each token as it is made.")] = True,
    templated: Annotated[
        bool, typer.Option("--templated", help="A chat template wrote the prompt: its special tokens are such.")
    ] = False,
    model: options.ModelOption = "",
    priority: options.PriorityOption = None,
    server: options.ServerOption = options.DEFAULT_SERVER,
    timeout_s: options.TimeoutOption = 60.0,
    report: options.ReportOption = None,
    *,
    attention: AttentionOptions | None,
    search: GenerationOptions,
) -> None:
    """Go on from a prompt, or from each line of a file or of stdin.

    What follows the prompt is printed as it is made, the prompt itself is not. Several sequences come
    when all are done. What follows a line is printed as one line, with a space for each end of a line. With
    --attention, a grid shows at which words of the prompt, and of what it had written so far, the model looked
    for each word. With --report, a page for a browser shows it instead, for every layer and head.

    [bold]Examples[/bold]
    [cyan]regard complete "The capital of France is" --max-new-tokens 20[/cyan]
    [cyan]regard complete "Once upon a time" --do-sample --temperature 0.8 --seed 7[/cyan]
    [cyan]regard complete "Q: Why is the sky blue? A:" --stop "Q:"[/cyan]
    [cyan]regard complete "The keys to the cabinet" --max-new-tokens 5 --attention[/cyan]
    [cyan]regard complete "The keys to the cabinet" --max-new-tokens 5 --report attention.html[/cyan]
    [cyan]regard complete --file prompts.txt --json | jq -r .text[/cyan]
    """
    from regard.cli.report import Report
    from regard.client import Client, CompleteOptions

    options.has_one_text(prompt, file, sys.stdin.isatty())
    several = search.get("num_return_sequences", 1) > 1
    if prompt is None and not as_json and several:
        refuse("lines get one sequence each, so that answers keep their numbers; give --json for several")
    name, version = options.name_and_version(model)
    # mypy takes no supertype's items: an unknown one could have a name of ours, and another type
    wanted = CompleteOptions(model=name, version=version, templated=templated, **search)  # type: ignore[typeddict-item]
    if attention:
        wanted["attention"] = attention
    if priority:
        wanted["priority"] = priority
    drawn = attention is not None and report is None
    every_layer = bool(attention and attention.layers)
    show = partial(_show, every_layer=every_layer, drawn=drawn)
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
        if prompt is None:
            from regard.cli.answers import answer_lines

            answer_lines(
                file,
                lambda prompts: page.keep_each(prompts, lambda kept: client.complete_each(kept, **wanted)),
                show if drawn else _show_line,
                as_json=as_json,
            )
        elif as_json:
            from regard.cli.records import answer_record, print_record

            print_record(answer_record(prompt, page.keep(prompt, client.complete(prompt, **wanted))))
        elif stream and not several:
            page.keep(prompt, _stream(client, prompt, wanted, every_layer=every_layer, drawn=drawn))
        else:
            show(page.keep(prompt, client.complete(prompt, **wanted)))


def _show(completion: Completion, *, every_layer: bool, drawn: bool) -> None:
    """Print every sequence on lines of its own; the attention of the best one is drawn."""
    if completion.attention is None or not drawn:
        print(completion.text, flush=True)
    else:
        from regard.cli.screen import OUT
        from regard.cli.views import text_view

        OUT.print(text_view(completion, every_layer=every_layer))
    for sequence in completion.further_sequences:
        print(sequence.text, flush=True)


def _show_line(completion: Completion) -> None:
    print(" ".join(completion.text.split()), flush=True)


def _stream(client: Client, prompt: str, wanted: CompleteOptions, *, every_layer: bool, drawn: bool) -> Completion:
    from regard.client import Completion

    with streamed_line() as show:
        for event in client.stream_complete(prompt, **wanted):
            if not isinstance(event, Completion):
                show(event.text)
                continue
            if drawn:
                print("\n")
                _show(event, every_layer=every_layer, drawn=drawn)
            return event
    raise AssertionError("a stream ends with its completion")

"""`regard translate`."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from regard.cli import options
from regard.cli.attention import ATTENTION
from regard.cli.flags import taking
from regard.cli.glossary import read_glossary
from regard.cli.interventions import CHANGES_ACROSS
from regard.cli.screen import refuse, streamed_line
from regard.cli.search import SEARCH

if TYPE_CHECKING:
    from regard.client import AttentionOptions, Client, GenerationOptions, Intervention, TranslateOptions, Translation


@taking(ATTENTION, CHANGES_ACROSS, SEARCH)
def translate(
    text: Annotated[
        str | None, typer.Argument(help="The text. Without it, lines are read from --file or stdin.")
    ] = None,
    file: options.FileOption = None,
    as_json: options.JsonOption = False,
    stream: Annotated[bool, typer.Option("--stream", help="Print each token as it is made.")] = False,
    model: options.ModelOption = "",
    truncate: options.TruncateOption = False,
    priority: options.PriorityOption = None,
    server: options.ServerOption = options.DEFAULT_SERVER,
    timeout_s: options.TimeoutOption = 60.0,
    align_att_frames: options.FramesOption = None,
    alignment: options.AlignmentOption = False,
    markup: Annotated[
        Literal["html", "xliff"] | None,
        typer.Option("--markup", help="What the text is marked up with: tags come back around the right words."),
    ] = None,
    quality: Annotated[
        bool, typer.Option("--quality", help="Tell how good each translation seems, and what may be wrong with it.")
    ] = False,
    glossary: Annotated[
        Path | None,
        typer.Option(
            "--glossary",
            metavar="FILE.tsv",
            help="Check terms: lines of a source term, a tab and the term expected in its place; words may end in *.",
        ),
    ] = None,
    replace_unknowns: Annotated[
        bool, typer.Option("--replace-unknowns", help="Copy words that the model's vocabulary doesn't know.")
    ] = False,
    report: options.ReportOption = None,
    *,
    attention: AttentionOptions | None,
    interventions: list[Intervention],
    search: GenerationOptions,
) -> None:
    """Translate a text, or each line of a file or of stdin.

    With --attention, a grid shows which source words the model looked at while it wrote each word.
    With --report, a page for a browser shows it instead, for every layer and head. With --stream as well, each
    token comes with the source tokens that it attends to most, and with --align-att-frames with a mark if it may
    change once more of the source is there.
    --knock-out, --ban and --window ask what the model would write if it looked at less.

    [bold]Examples[/bold]
    [cyan]regard translate "They grow oranges in California."[/cyan]
    [cyan]regard translate "They grow oranges in California." --attention[/cyan]
    [dim]# each head of layer 0[/dim]
    [cyan]regard translate "How are you?" --attention-layer 0 --attention-reduction none[/cyan]
    [dim]# through all layers, down to the words[/dim]
    [cyan]regard translate "How are you?" --attention-reduction rollout[/cyan]
    [cyan]regard translate --file english.txt --json --attention-top-k 3 --attention-encoding uint8[/cyan]
    [cyan]regard translate "They grow oranges in California." --alignment[/cyan]
    [cyan]regard translate "They grow oranges in California." --stream --align-att-frames 2[/cyan]
    [cyan]regard translate "I have a <b>red</b> car." --markup html[/cyan]
    [cyan]regard translate "I have a red car." --quality --glossary terms.tsv[/cyan]
    [cyan]regard translate "How are you?" --report attention.html[/cyan]
    [dim]# without a look at the word[/dim]
    [cyan]regard translate "They grow oranges in California." --ban oranges[/cyan]
    [cyan]regard translate "How are you?" --num-beams 4 --num-return-sequences 3[/cyan]
    [cyan]regard translate --file english.txt > french.txt[/cyan]
    [cyan]cat english.txt | regard translate --json | jq -r .text[/cyan]
    """
    from regard.cli.report import Report
    from regard.client import Ban, Client, TranslateOptions

    single = options.has_one_text(text, file, sys.stdin.isatty())
    if stream and not single:
        refuse("--stream takes one text; lines are answered as they are done")
    if stream and report:
        refuse("--stream prints tokens and --report writes a page: give one of them")
    if report and markup:
        refuse("--report shows texts as the model reads them, without --markup: give one of them")
    if markup and any(isinstance(change, Ban) for change in interventions):
        refuse("--ban finds words in the text as the model reads it, without --markup: give one of them")
    if stream and markup:
        refuse("--stream can't place --markup before the last token: give one of them")
    if stream and replace_unknowns:
        refuse("--stream can't tell an unknown word before the last token: leave out --replace-unknowns")
    if align_att_frames and not stream:
        refuse("--align-att-frames marks tokens as they are made: give --stream as well")
    if text is None and not as_json and search.get("num_return_sequences", 1) > 1:
        refuse("lines get one sequence each, so that answers keep their numbers; give --json for several")
    name, version = options.name_and_version(model)
    # mypy takes no supertype's items: an unknown one could have a name of ours, and another type
    wanted = TranslateOptions(model=name, version=version, truncate=truncate, **search)  # type: ignore[typeddict-item]
    if attention:
        wanted["attention"] = attention
    if align_att_frames:
        wanted["align_att_frames"] = align_att_frames
    if alignment:
        wanted["alignment"] = True
    if markup:
        wanted["markup"] = markup
    if quality:
        wanted["quality"] = True
    if glossary:
        wanted["glossary"] = read_glossary(glossary)
    if replace_unknowns:
        wanted["replace_unknowns"] = True
    if interventions:
        wanted["interventions"] = interventions
    if priority:
        wanted["priority"] = priority
    show = partial(_show, every_layer=bool(attention and attention.layers), drawn=report is None)
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
                lambda texts: page.keep_each(texts, lambda kept: client.translate_each(kept, **wanted)),
                show,
                as_json=as_json,
            )
        elif stream:
            _stream(client, text, wanted, every_layer=bool(attention and attention.layers), as_json=as_json)
        elif as_json:
            from regard.cli.records import answer_record, print_record

            print_record(answer_record(text, page.keep(text, client.translate(text, **wanted))))
        else:
            show(page.keep(text, client.translate(text, **wanted)))


def _show(translation: Translation, *, every_layer: bool, drawn: bool = True) -> None:
    """Print every sequence on a line of its own; the attention of the best one is drawn."""
    if translation.attention is None or not drawn:
        print(translation.text, flush=True)
    else:
        from regard.cli.screen import OUT
        from regard.cli.views import text_view

        OUT.print(text_view(translation, every_layer=every_layer))
    if translation.alignment is not None and drawn:
        from regard.cli.screen import OUT
        from regard.cli.views import alignment_view

        OUT.print(alignment_view(translation.alignment))
    if translation.quality is not None:
        from regard.cli.screen import OUT
        from regard.cli.views import quality_view

        OUT.print(quality_view(translation.quality))
    if translation.glossary:
        from regard.cli.screen import OUT
        from regard.cli.views import glossary_view

        OUT.print(glossary_view(translation.glossary))
    for sequence in translation.further_sequences:
        print(sequence.text, flush=True)


def _stream(client: Client, text: str, wanted: TranslateOptions, *, every_layer: bool, as_json: bool) -> None:
    from regard.cli.records import answer_record, plain, print_record
    from regard.cli.screen import OUT
    from regard.cli.views import TokenLines
    from regard.client import Translation

    lines = TokenLines() if "attention" in wanted else None
    with streamed_line(as_json=as_json) as show:
        for event in client.stream_translate(text, **wanted):
            if as_json:
                done = isinstance(event, Translation)
                print_record(answer_record(text, event) if done else {"delta": plain(event)})
            elif not isinstance(event, Translation):
                if lines is None:
                    show(event.text)
                else:
                    for line in lines.add(event):
                        OUT.print(line)
            else:
                for line in lines.finish() if lines else ():
                    OUT.print(line)
                if event.attention or event.alignment or event.quality or event.glossary:
                    print("\n")
                    _show(event, every_layer=every_layer)

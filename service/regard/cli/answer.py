"""`regard answer`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regard.cli import options
from regard.cli.attention import ATTENTION
from regard.cli.flags import taking
from regard.cli.screen import refuse

if TYPE_CHECKING:
    from regard.client import AnsweredQuestion, AttentionOptions


@taking(ATTENTION)
def answer(
    question: Annotated[str, typer.Argument(help="The question.")],
    context: Annotated[str | None, typer.Option("--context", "-c", help="The text that holds the answer.")] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", metavar="FILE", help="Read the context from FILE, or - for stdin, as a whole."),
    ] = None,
    as_json: options.JsonOption = False,
    top_k: Annotated[int, typer.Option("--top-k", min=1, metavar="N", help="How many answers to return.")] = 1,
    max_answer_tokens: Annotated[
        int, typer.Option("--max-answer-tokens", min=1, metavar="N", help="The most tokens of an answer.")
    ] = 15,
    impossible: Annotated[
        bool, typer.Option("--impossible", help="Let there be no answer, if the model was trained to tell.")
    ] = False,
    model: options.ModelOption = "",
    priority: options.PriorityOption = None,
    server: options.ServerOption = options.DEFAULT_SERVER,
    timeout_s: options.TimeoutOption = 60.0,
    report: options.ReportOption = None,
    *,
    attention: AttentionOptions | None,
) -> None:
    """Answer a question with a part of a text.

    An answer is a line: its score, where it stands in the context, and what it says; an empty one says that
    there is none. A context of any length is read in windows. With --attention, the words of the best
    answer's window are highlighted by the weight that the model's first token gives them. With --report, a page for
    a browser shows it instead, for every layer, head and word.

    [bold]Examples[/bold]
    [cyan]regard answer "Where does Sarah live?" --context "Sarah lives in London."[/cyan]
    [cyan]regard answer "Who wrote it?" --file article.txt --top-k 3[/cyan]
    [cyan]regard answer "Who wrote it?" --file article.txt --report attention.html[/cyan]
    [cyan]curl -s URL | regard answer "When was it founded?" --file - --impossible --json[/cyan]
    """
    from regard.cli.report import Report
    from regard.client import AnswerOptions, Client

    if (context is None) == (file is None):
        refuse("give the text that holds the answer by --context or by --file, one of them")
    name, version = options.name_and_version(model)
    wanted = AnswerOptions(
        model=name,
        version=version,
        top_k=top_k,
        max_answer_tokens=max_answer_tokens,
        handle_impossible_answer=impossible,
    )
    if priority:
        wanted["priority"] = priority
    if attention:
        wanted["attention"] = attention
    given = (question, context if context is not None else _read(file))
    with Client(server, timeout_s=timeout_s) as client, Report(report) as page:
        answered = page.keep(given, client.answer(*given, **wanted))
        if as_json:
            from regard.cli.records import answer_record, print_record

            print_record(answer_record(question, answered))
        else:
            _show(answered, every_layer=bool(attention and attention.layers), drawn=report is None)


def _read(file: Path | None) -> str:
    assert file is not None
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text("utf-8")
    except OSError as error:
        refuse(f"can't read {file}: {error.strerror}")
    except UnicodeDecodeError as error:
        refuse(f"{file} is not UTF-8 at byte {error.start}: convert it, for example with `iconv -t utf-8`")


def _show(answered: AnsweredQuestion, *, every_layer: bool, drawn: bool) -> None:
    from regard.cli.screen import OUT
    from regard.cli.views import highlighted_view

    for one in answered.answers:
        print(f"{one.score:.4f}\t{one.start}-{one.end}\t{' '.join(one.text.split())}")
    if answered.attention is not None and drawn:
        OUT.print(highlighted_view(answered.attention, every_layer=every_layer))

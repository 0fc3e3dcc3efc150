"""`regard demo`: a server, ten sentences, five scenes, five utterances, and what the models attended to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from regard.cli.screen import OUT, error

if TYPE_CHECKING:
    from regard.cli.demo.inputs import Inputs
    from regard.cli.demo.measures import AllAnswers, Answers
    from regard.client import Caption, Classification, Translation
    from regard.report import Answer, Input


def demo(
    models: Annotated[Path, typer.Option("--models", help="A directory with the demonstration's packages.")] = Path(
        "models"
    ),
    output: Annotated[
        Path, typer.Option("--output", help="The directory of report.html, summary.json and the server's log.")
    ] = Path("demo"),
) -> None:
    """Serve the demonstration models, ask them fixed questions, and show what they attend to."""
    from regard.cli.demo.inputs import load_inputs
    from regard.cli.demo.measures import ask_all
    from regard.cli.demo.server import serving
    from regard.cli.demo.summary import faults, summarize
    from regard.client import AsyncClient
    from regard.report import write_report

    inputs = load_inputs()
    output.mkdir(parents=True, exist_ok=True)

    async def ask(target: str) -> AllAnswers:
        async with AsyncClient(target) as client:
            return await ask_all(client, inputs)

    status = OUT.status("starting the server …")
    with status, serving(models, output / "server.log") as server:
        status.update(f"asking {server.target} …")
        answers = asyncio.run(ask(server.target))
        summary = summarize(inputs, answers, server)
        status.update("stopping the server …")
    summary["server_exit_code"] = server.exit_code
    found = faults(summary, answers)
    if server.exit_code != 0:
        found.append(f"the server ended with {server.exit_code} after SIGTERM")
    (output / "summary.json").write_text(json.dumps(summary, ensure_ascii=False, indent=2) + "\n", "utf-8")
    write_report(output / "report.html", _asked_and_answered(inputs, answers))
    _show_translations(inputs, answers.translations)
    _show_captions(inputs, answers.captions)
    _show_classifications(inputs, answers.classifications)
    _show_summary(summary, output)
    for one in found:
        error(one)
    if found:
        raise typer.Exit(1)


def _asked_and_answered(inputs: Inputs, answers: AllAnswers) -> list[tuple[Input, Answer]]:
    """Return what the page shows: every input with its answer."""
    asked: list[Input] = [one.source for one in inputs.sentences]
    asked += [one.image for one in inputs.scenes]
    asked += [one.text for one in inputs.utterances]
    answered: list[Answer] = [
        *answers.translations.reported,
        *answers.captions.reported,
        *answers.classifications.reported,
    ]
    return list(zip(asked, answered, strict=True))


def _show_translations(inputs: Inputs, answers: Answers[Translation]) -> None:
    from regard.cli.views import text_view

    _head(inputs.translator, f"{len(inputs.sentences)} held-out sentences")
    for sentence, answer in zip(inputs.sentences, answers.plain, strict=True):
        _show_output(sentence.source, answer.text, sentence.references)
    OUT.print(
        "\n[dim]= equals a reference of the corpus; ≠ differs from all of them, which follow in grey.\n"
        "Picked by hand; the checkpoint's card has the quality over the whole test split.[/]\n"
    )
    for sentence, answer in zip(inputs.sentences, answers.drawn, strict=True):
        if sentence.drawn:
            OUT.print(text_view(answer, every_layer=False))


def _show_captions(inputs: Inputs, answers: Answers[Caption]) -> None:
    from regard.cli.views import caption_view

    _head(inputs.captioner, f"{len(inputs.scenes)} drawn scenes")
    for scene, answer in zip(inputs.scenes, answers.plain, strict=True):
        _show_output(scene.file, answer.text, scene.references)
    OUT.print(
        "\n[dim]A synthetic world, and the only one that this model knows.\n"
        "The last scene holds a blue triangle, which no training scene does.[/]\n"
    )
    for scene, answer in zip(inputs.scenes, answers.drawn, strict=True):
        if scene.drawn:
            OUT.print(caption_view(answer, scene.image, every_layer=False))


def _show_classifications(inputs: Inputs, answers: Answers[Classification]) -> None:
    from regard.cli.views import classification_view

    _head(inputs.classifier, f"{len(inputs.utterances)} held-out utterances")
    for utterance, answer in zip(inputs.utterances, answers.drawn, strict=True):
        equal = answer.classes[0].label == utterance.label
        OUT.print(Text.assemble(_sign(equal), (utterance.text, "bold"), (f"  {utterance.label}", "dim")))
        OUT.print()
        OUT.print(classification_view(answer, every_layer=False))


def _head(model: str, asked: str) -> None:
    OUT.rule(f"[bold]{model}[/]: {asked}, asked at once", align="left", style="dim")


def _show_output(source: str, output: str, references: Sequence[str]) -> None:
    """Print an output below its input, and the references below that unless it is one of them."""
    equal = output in references
    OUT.print(Text.assemble(("\n  ", ""), (source, "bold")))
    OUT.print(Text.assemble(_sign(equal), (output, "cyan")))
    for reference in () if equal else references:
        OUT.print(Text(f"  {reference}", "dim"))


def _sign(equal: bool) -> tuple[str, str]:
    return ("= ", "green") if equal else ("≠ ", "yellow")


def _show_summary(summary: dict[str, Any], output: Path) -> None:
    columns = ("task", "= reference", "tokens/s", "with attention", "rows a batch")
    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim")
    for name, task in summary["tasks"].items():
        equal = sum(example["equals_a_reference"] for example in task["examples"])
        table.add_row(
            name,
            f"{equal} of {len(task['examples'])}",
            f"{task['tokens_per_s']:.0f}",
            f"{task['tokens_per_s_with_all_attention']:.0f}",
            ", ".join(f"{graph} {sizes['mean_rows']:.1f}" for graph, sizes in task["batch_sizes"].items()),
        )
    OUT.rule("[bold]in short[/]", align="left", style="dim")
    OUT.print(table)
    OUT.print(
        f"attention  every row of every map sums to 1 within {summary['row_sum_error']:.1e}\n"
        f"server     stopped by SIGTERM with exit code {summary['server_exit_code']}\n"
        f"written    {output / 'summary.json'}\n"
        f"look at    {output / 'report.html'}, in a browser"
    )

"""`regard compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regard.cli import options
from regard.cli.attention import ATTENTION
from regard.cli.flags import taking
from regard.cli.screen import error, in_words, refuse

if TYPE_CHECKING:
    from regard.client import AttentionOptions, Comparison


@taking(ATTENTION)
def compare(
    images: Annotated[list[Path], typer.Argument(help="The image files.", metavar="IMAGE...")],
    text: Annotated[list[str], typer.Option("--text", "-t", help="A text to compare with; may be repeated.")],
    as_json: options.JsonOption = False,
    embeddings: Annotated[bool, typer.Option("--embeddings", help="Return embeddings, too; shown by --json.")] = False,
    model: options.ModelOption = "",
    truncate: options.TruncateOption = False,
    priority: options.PriorityOption = None,
    server: options.ServerOption = options.DEFAULT_SERVER,
    timeout_s: options.TimeoutOption = 60.0,
    *,
    attention: AttentionOptions | None,
) -> None:
    """Say how alike images are to texts.

    Each image gets a bar for each text: how likely it is among these texts. Attention, of either encoder, is shown
    by --json.

    [bold]Examples[/bold]
    [cyan]regard compare cat.jpg -t "a photo of a cat" -t "a photo of a dog"[/cyan]
    [cyan]regard compare *.jpg -t "a red circle" --json | jq '.images[].scores'[/cyan]
    """
    from regard.client import Client, CompareOptions

    name, version = options.name_and_version(model)
    wanted = CompareOptions(model=name, version=version, truncate=truncate, embeddings=embeddings)
    if priority:
        wanted["priority"] = priority
    if attention:
        wanted["attention"] = attention
    with Client(server, timeout_s=timeout_s) as client:
        try:
            compared = client.compare(images, text, **wanted)
        except OSError as problem:
            refuse(f"can't read {problem.filename}: {problem.strerror}")
    if as_json:
        from regard.cli.records import plain, print_record

        print_record({"sources": [str(image) for image in images], **plain(compared)})
    else:
        _show(compared, images, text)
    if not _tell(compared, images, text):
        raise typer.Exit(1)


def _show(compared: Comparison, images: list[Path], texts: list[str]) -> None:
    from regard.cli.drawing import Bars
    from regard.cli.screen import OUT
    from regard.client import ComparedImage

    for image, found in zip(images, compared.images, strict=True):
        if isinstance(found, ComparedImage):
            ranked = sorted(found.scores, key=lambda score: -score.logit)
            OUT.print(str(image), markup=False)
            OUT.print(Bars([texts[one.text_index] for one in ranked], [one.probability for one in ranked]))


def _tell(compared: Comparison, images: list[Path], texts: list[str]) -> bool:
    """Say which inputs failed; return whether none did."""
    from regard.client import Failure

    named = [*map(str, images), *map(repr, texts)]
    failed = [
        (name, found)
        for name, found in zip(named, [*compared.images, *compared.texts], strict=True)
        if isinstance(found, Failure)
    ]
    for name, failure in failed:
        error(f"{name}: {in_words(failure.message, failure.field)} ({failure.code_name})")
    return not failed

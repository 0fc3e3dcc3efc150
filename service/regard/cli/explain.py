"""`regard explain`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regard.cli import options
from regard.cli.attribution import (
    KNOCKED_OUT,
    FaithfulnessOption,
    GranularityOption,
    LanguageOption,
    MethodOption,
    OverlayOption,
    StrideOption,
    WindowOption,
    attribution_options,
)
from regard.cli.files import read_file
from regard.cli.flags import taking
from regard.cli.help import Command
from regard.cli.screen import refuse

if TYPE_CHECKING:
    from regard.client import Attributions, HeadChoice

explain = typer.Typer(
    name="explain",
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Tell which parts of an input made a model answer as it did, and how faithful each account of that is.",
)


@explain.command(name="class", cls=Command)
@taking(KNOCKED_OUT)
def explain_class(
    text: Annotated[str | None, typer.Argument(help="The text; or give an image with --image.")] = None,
    pair: Annotated[
        str | None, typer.Option("--pair", help="The second of two texts, for a model trained on pairs.")
    ] = None,
    image: Annotated[
        Path | None, typer.Option("--image", metavar="FILE", help="An image file: JPEG, PNG, WebP or GIF.")
    ] = None,
    label: Annotated[str, typer.Option("--label", help="The class to explain. Default: the likeliest.")] = "",
    method: MethodOption = None,
    faithfulness: FaithfulnessOption = False,
    overlay: OverlayOption = None,
    granularity: GranularityOption = None,
    window: WindowOption = None,
    stride: StrideOption = None,
    as_json: options.JsonOption = False,
    model: options.ModelOption = "",
    truncate: options.TruncateOption = False,
    priority: options.PriorityOption = None,
    server: options.ServerOption = options.DEFAULT_SERVER,
    timeout_s: options.TimeoutOption = 60.0,
    *,
    heads: HeadChoice | None,
) -> None:
    """Tell which words of a text, or patches of an image, made a class likely.

    Each method is drawn on its own. leave_one_out and occlusion run the model again without some words: their
    figures are percentage points that the class loses so, and a word against the class has a minus and is red.
    last_layer and rollout are what the model's first token attends to. With --faithfulness, a table tells
    which of them a person should believe: one that is no better than a random order tells nothing.
    head_knock_out is a table of layers and heads: what the class loses without each, of a package exported with
    --interventions.

    [bold]Examples[/bold]
    [cyan]regard explain class "book me a flight to paris"[/cyan]
    [cyan]regard explain class "book me a flight to paris" --faithfulness[/cyan]
    [cyan]regard explain class "book me a flight to paris" --label book_hotel -m leave_one_out[/cyan]
    [cyan]regard explain class --image photo.jpg --model vit --overlay why.png[/cyan]
    [cyan]regard explain class "cancel it" -m head_knock_out[/cyan]
    [cyan]regard explain class "cancel it" --json | jq .attributions.methods[/cyan]
    """
    from regard.client import AttributeClassOptions, Client

    if (text is None) == (image is None):
        refuse("give a text, or an image with --image; --help has examples")
    if pair is not None and text is None:
        refuse("--pair is the second of two texts: give the first as the argument")
    if overlay is not None and image is None:
        refuse("--overlay draws on an image: give one with --image")
    content = None if image is None else read_file(image)
    wanted = AttributeClassOptions(
        label=label,
        truncate=truncate,
        **attribution_options(
            model, method, granularity, window, stride, heads, faithfulness=faithfulness, overlay=overlay is not None
        ),
    )
    if priority:
        wanted["priority"] = priority
    given = content if text is None else text if pair is None else (text, pair)
    assert given is not None
    with Client(server, timeout_s=timeout_s) as client:
        answer = client.attribute_class(given, **wanted)
    if overlay is not None:
        write_overlay(overlay, answer.attributions)
    if as_json:
        from regard.cli.records import answer_record, print_record

        print_record(answer_record(text or str(image), answer))
    else:
        from regard.cli.explained import class_view
        from regard.cli.screen import OUT

        OUT.print(class_view(answer, content))


@explain.command(name="translation", cls=Command)
@taking(KNOCKED_OUT)
def explain_translation(
    text: Annotated[str, typer.Argument(help="The text.")],
    target: Annotated[
        str | None, typer.Option("--target", help="The translation to explain. Default: the model's own.")
    ] = None,
    method: MethodOption = None,
    faithfulness: FaithfulnessOption = False,
    granularity: GranularityOption = None,
    window: WindowOption = None,
    stride: StrideOption = None,
    language: LanguageOption = "",
    as_json: options.JsonOption = False,
    model: options.ModelOption = "",
    truncate: options.TruncateOption = False,
    priority: options.PriorityOption = None,
    server: options.ServerOption = options.DEFAULT_SERVER,
    timeout_s: options.TimeoutOption = 60.0,
    *,
    heads: HeadChoice | None,
) -> None:
    """Tell which words of a text made each word of its translation likely.

    Each method is a grid: words of the translation as rows, of the text as columns. leave_one_out and occlusion
    score the same translation again for the text without some words: their figures are by how much the
    log-probability of the row's word falls, and a word that speaks against it is red. A translation that
    somebody else made is explained with --target. With --faithfulness, a table tells which method a person
    should believe: one that is no better than a random order tells nothing. head_knock_out tells which heads the
    translation rests on, of a package exported with --interventions.

    [bold]Examples[/bold]
    [cyan]regard explain translation "They grow oranges in California."[/cyan]
    [cyan]regard explain translation "They grow oranges." --target "Ils cultivent des oranges." -m leave_one_out[/cyan]
    [cyan]regard explain translation "They grow oranges in California." --faithfulness[/cyan]
    [cyan]regard explain translation "They grow oranges." -m head_knock_out --head-kind cross[/cyan]
    """
    from regard.client import AttributeTranslationOptions, Client

    # mypy takes no supertype's items: an unknown one could have a name of ours, and another type
    wanted = AttributeTranslationOptions(
        truncate=truncate,
        **attribution_options(  # type: ignore[typeddict-item]
            model, method, granularity, window, stride, heads, faithfulness=faithfulness, overlay=False
        ),
    )
    if language:
        wanted["target_language"] = language
    if priority:
        wanted["priority"] = priority
    with Client(server, timeout_s=timeout_s) as client:
        answer = client.attribute_translation(text if target is None else (text, target), **wanted)
    if as_json:
        from regard.cli.records import answer_record, print_record

        print_record(answer_record(text, answer))
    else:
        from regard.cli.explained import translation_view
        from regard.cli.screen import OUT

        OUT.print(translation_view(answer))


@explain.command(name="caption", cls=Command)
@taking(KNOCKED_OUT)
def explain_caption(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="An image file: JPEG, PNG, WebP or GIF.")],
    target: Annotated[
        str | None, typer.Option("--target", help="The caption to explain. Default: the model's own.")
    ] = None,
    method: MethodOption = None,
    faithfulness: FaithfulnessOption = False,
    overlay: OverlayOption = None,
    window: WindowOption = None,
    stride: StrideOption = None,
    as_json: options.JsonOption = False,
    model: options.ModelOption = "",
    priority: options.PriorityOption = None,
    server: options.ServerOption = options.DEFAULT_SERVER,
    timeout_s: options.TimeoutOption = 60.0,
    *,
    heads: HeadChoice | None,
) -> None:
    """Tell which patches of an image made each word of its caption likely.

    For each method, a small picture for each word is lit where the patches speak for it. occlusion scores the
    same caption again for the image with a square of patches in its mean colour; the others are what the model
    attended to. With --overlay, the image is written under each method's weights for the whole caption.
    head_knock_out tells which heads the caption rests on, of a package exported with --interventions.

    [bold]Examples[/bold]
    [cyan]regard explain caption photo.jpg[/cyan]
    [cyan]regard explain caption photo.jpg --overlay why.png --faithfulness[/cyan]
    [cyan]regard explain caption photo.jpg --target "a dog on a sofa" -m occlusion[/cyan]
    """
    from regard.client import AttributeOutputOptions, Client

    wanted = AttributeOutputOptions(
        **attribution_options(  # type: ignore[typeddict-item]
            model, method, None, window, stride, heads, faithfulness=faithfulness, overlay=overlay is not None
        ),
    )
    if priority:
        wanted["priority"] = priority
    content = read_file(image)
    with Client(server, timeout_s=timeout_s) as client:
        answer = client.attribute_caption(content if target is None else (content, target), **wanted)
    if overlay is not None:
        write_overlay(overlay, answer.attributions)
    if as_json:
        from regard.cli.records import answer_record, print_record

        print_record(answer_record(str(image), answer))
    else:
        from regard.cli.explained import caption_view
        from regard.cli.screen import OUT

        OUT.print(caption_view(answer, content))


def write_overlay(file: Path, told: Attributions) -> None:
    """Write what every method looks like over the image; a file that can't be written ends the command."""
    from regard.cli.explained import words_of
    from regard.cli.pictures import side_by_side

    drawn = [(words_of(one.method), one.overlay) for one in told.methods if one.overlay is not None]
    try:
        file.write_bytes(side_by_side(drawn))
    except OSError as problem:
        refuse(f"can't write {file}: {problem.strerror}")

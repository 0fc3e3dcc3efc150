"""The options of `regard explain`: how to tell what parts, or heads, are worth."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from regard.cli import options
from regard.cli.flags import Flag, Group
from regard.cli.screen import refuse

if TYPE_CHECKING:
    from regard.client import HeadChoice
    from regard.client.requests.attribution import AttributionOptions


class Method(StrEnum):
    """The ways to tell what a part is worth."""

    LEAVE_ONE_OUT = "leave_one_out"
    OCCLUSION = "occlusion"
    LAST_LAYER = "last_layer"
    ROLLOUT = "rollout"
    ALIGNMENT_HEADS = "alignment_heads"
    HEAD_KNOCK_OUT = "head_knock_out"
    VALUE_NORM = "value_norm"


GranularityOption = Annotated[
    Literal["token", "word"] | None,
    typer.Option("--granularity", help="What a part of a text is. Default: word.", show_default=False),
]
MethodOption = Annotated[
    list[Method] | None,
    typer.Option(
        "--method",
        "-m",
        help="How to tell; may be repeated. Default: every way that there is, but head_knock_out.",
        show_default=False,
    ),
]
FaithfulnessOption = Annotated[
    bool,
    typer.Option("--faithfulness", "-F", help="Measure how faithful each method is, and random orders beside."),
]
OverlayOption = Annotated[
    Path | None,
    typer.Option("--overlay", metavar="FILE.png", help="Write the image under each method's weights, side by side."),
]
WindowOption = Annotated[
    int | None,
    typer.Option(
        "--window",
        min=1,
        metavar="N",
        help="How many words, or patches of a square's side, occlusion covers. Default: 2 words, a fifth of a side.",
        show_default=False,
    ),
]
StrideOption = Annotated[
    int | None,
    typer.Option(
        "--stride", min=1, metavar="N", help="By how many such windows are apart. Default: 1.", show_default=False
    ),
]
LanguageOption = Annotated[
    str, typer.Option("--target-language", metavar="TOKEN", help="The language to write, for a model of several.")
]
HEADS: dict[str, Flag] = {
    "head_kinds": Flag(
        list[str], ("--head-kind",), "self or cross; may be repeated. Default: every kind that there is.", "KIND"
    ),
    "head_stacks": Flag(
        list[str],
        ("--head-stack",),
        "encoder or decoder; may be repeated. Default: all that have the kinds.",
        "STACK",
    ),
    "head_layers": Flag(list[int], ("--head-layer",), "A layer, counted from 0; may be repeated. Default: all.", "N"),
}
"""Each option, by the name that the client has for it, behind `head_`."""


def _heads(given: Mapping[str, Any]) -> HeadChoice | None:
    """Return which heads are chosen; None if no option speaks of them."""
    from regard.client import HeadChoice

    chosen: Any = {name.removeprefix("head_"): given[name] for name in HEADS if given[name]}
    if chosen and Method.HEAD_KNOCK_OUT not in (given["method"] or ()):
        refuse(f"--head-kind, --head-stack and --head-layer are for -m {Method.HEAD_KNOCK_OUT}: give that, too")
    return HeadChoice(**chosen) if chosen else None


KNOCKED_OUT = Group("heads", f"Heads (of -m {Method.HEAD_KNOCK_OUT})", HEADS, _heads)
"""Which heads are knocked out, as a `HeadChoice`, or None."""


def attribution_options(
    model: str,
    methods: list[Method] | None,
    granularity: Literal["token", "word"] | None,
    window: int | None,
    stride: int | None,
    heads: HeadChoice | None,
    *,
    faithfulness: bool,
    overlay: bool,
) -> AttributionOptions:
    """Return what is asked of any input; a stride alone is that of the default window."""
    from regard.client.requests.attribution import AttributionOptions

    if overlay and set(methods or ()) == {Method.HEAD_KNOCK_OUT}:
        refuse(f"--overlay draws what patches are worth, and {Method.HEAD_KNOCK_OUT} tells of heads: add a method")
    name, version = options.name_and_version(model)
    asked = AttributionOptions(
        model=name,
        version=version,
        methods=[one.value for one in methods or ()],
        granularity=granularity or "word",
        faithfulness=faithfulness,
        overlay=overlay,
    )
    if window:
        asked["occlusion_window"] = window
    if stride:
        asked["occlusion_stride"] = stride
    if heads:
        asked["heads"] = heads
    return asked

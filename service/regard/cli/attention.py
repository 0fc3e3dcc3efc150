"""The options of attention, which every command takes whose answers have some."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from regard.cli.flags import Flag, Group

if TYPE_CHECKING:
    from regard.client import AttentionOptions

FLAGS: dict[str, Flag] = {
    "attention": Flag(bool, ("--attention", "-a"), "Show what the model attended to."),
    "attention_kinds": Flag(
        list[str],
        ("--attention-kind",),
        "self (within a sequence) or cross (from decoder to encoder); may be repeated. Default: cross, if any.",
        "KIND",
    ),
    "attention_stacks": Flag(
        list[str],
        ("--attention-stack",),
        "encoder, decoder, text_encoder or image_encoder; may be repeated. Default: all that have the kind.",
        "STACK",
    ),
    "attention_layers": Flag(
        list[int],
        ("--attention-layer",),
        "A layer, counted from 0; may be repeated. Default: the last is drawn.",
        "N",
    ),
    "attention_heads": Flag(
        list[int],
        ("--attention-head",),
        "A head, counted from 0; may be repeated. Default: all.",
        "N",
    ),
    "attention_reduction": Flag(
        Literal["none", "mean", "max", "alignment_heads", "rollout"],
        ("--attention-reduction",),
        "How heads are put together: not at all, to their mean or largest weight, those that tell the word alignment, "
        "or rolled out over the layers below. Default: mean; none for a report.",
    ),
    "attention_granularity": Flag(
        Literal["token", "word", "patch"],
        ("--attention-granularity",),
        "What a row or column stands for: a token, a word, or of an image its patches without [CLS]. Default: word.",
    ),
    "attention_weighting": Flag(
        Literal["none", "value_norm"],
        ("--attention-weighting",),
        "What weights are multiplied by: value_norm is the norm of what they weigh, of a package exported with "
        "--value-norms. Default: none.",
    ),
    "attention_prompt": Flag(
        bool,
        ("--attention-prompt",),
        "Add how a completion's prompt, or a captioner's image, attends to itself, where the decoder reads it.",
    ),
    "attention_top_k": Flag(int, ("--attention-top-k",), "Keep so many of every row's weights, the largest.", "N"),
    "attention_encoding": Flag(
        Literal["float32", "float16", "uint8"],
        ("--attention-encoding",),
        "How weights travel: in 4 bytes each, exactly; in 2, within 0.00025; in 1, within 1/510 of the row's largest.",
    ),
    "attention_max_bytes": Flag(
        int,
        ("--attention-max-bytes",),
        "The most bytes that one input's maps may come to; what is over it fails, and says what would fit. "
        "Default: as many as the server allows.",
        "N",
    ),
}
"""Each option, by the name that the client has for it, behind `attention_`."""


def _attention(given: Mapping[str, Any]) -> AttentionOptions | None:
    """Return what attention to ask for; None if no option speaks of it.

    A report gets every head by itself, and what is told token by token gets tokens.
    """
    from regard.client import AttentionOptions

    by_tokens = given.get("stream") and "align_att_frames" in given
    reports = given.get("report") is not None
    asked = {name: given[name] for name in FLAGS if given[name] not in (None, [], False)}
    if not asked and not reports and not given.get("align_att_frames"):
        return None
    asked.pop("attention", None)
    usual = {"reduction": "none" if reports else "mean", "granularity": "token" if by_tokens else "word"}
    options: Any = usual | {name.removeprefix("attention_"): value for name, value in asked.items()}
    return AttentionOptions(**options)


ATTENTION = Group("attention", "Attention (each option but the first implies it)", FLAGS, _attention)
"""What attention to return, as `AttentionOptions`, or None."""

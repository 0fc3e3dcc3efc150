"""Axes and maps as the page is told them: which elements there are, and every weight between them."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from regard.answers import AttentionMap, PatchGrid, Segment
from regard.viewer import Encoding, encode_weights


def direction_of(text: str) -> str:
    """Return `rtl` for a text whose first letter is written from right to left, otherwise `ltr` (UAX 9, P2)."""
    for character in text:
        match unicodedata.bidirectional(character):
            case "L":
                return "ltr"
            case "R" | "AL":
                return "rtl"
    return "ltr"


def axes_of(maps: Sequence[AttentionMap], texts: Mapping[str, tuple[str, ...] | None]) -> dict[str, Any]:
    """Return every axis of some maps by its name; `texts` has what an axis runs over, None where it isn't known."""
    axes: dict[str, Any] = {}
    for one in maps:
        axes[one.query_axis] = _axis(one.queries, one.query_grid, texts.get(one.query_axis))
        axes[one.key_axis] = _axis(one.keys, one.key_grid, texts.get(one.key_axis))
    return axes


def _axis(segments: Sequence[Segment], grid: PatchGrid | None, texts: tuple[str, ...] | None) -> dict[str, Any]:
    """Return the elements of an axis; `spaced` tells whether its text has a space before one, or had room for it."""
    described, end, apart, part = [], 0, False, 0
    for segment in segments:
        if segment.part != part:
            part, end, apart = segment.part, 0, True
        text = texts[part] if texts and part < len(texts) else None
        between = " " * (segment.start - end) if text is None else text[end : segment.start]
        spaced = apart or segment.special or any(map(str.isspace, between))
        described.append({"text": segment.text, "special": segment.special, "spaced": spaced})
        end, apart = max(end, segment.end), segment.special
    said = texts[-1] if texts else ""
    return {
        "direction": direction_of(said or " ".join(one.text for one in segments if not one.special)),
        "segments": described,
        "grid": grid
        and {
            "rows": grid.rows,
            "columns": grid.columns,
            "left": grid.left / grid.image_width,
            "top": grid.top / grid.image_height,
            "width": grid.width / grid.image_width,
            "height": grid.height / grid.image_height,
        },
    }


def map_of(one: AttentionMap, encoding: Encoding) -> dict[str, Any]:
    """Return a map with all of its keys, its weights in an encoding."""
    weights = one.shares()
    encoded = encode_weights(weights, encoding)
    return {
        "kind": one.kind,
        "stack": one.stack,
        "layer": one.layer,
        "heads": list(one.heads),
        "reduction": one.reduction,
        "query_axis": one.query_axis,
        "key_axis": one.key_axis,
        "shape": list(weights.shape),
        "encoding": encoded.encoding,
        "error": encoded.error,
        "weights": encoded.base64,
    }

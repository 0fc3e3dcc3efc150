"""Answers as one JSON document: what the page is told, and nothing that it doesn't show."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

from regard.answers import Attention, AttentionMap, Caption, Classification, PatchGrid, Segment, Translation
from regard.errors import InvalidInputError
from regard.viewer import MOST_WEIGHTS, Encoding, choose_encoding, embed, encode_weights

Input: TypeAlias = str | bytes | PathLike[str]
"""What was asked: a text, or an image file, which is its bytes or where it lies."""
Answer: TypeAlias = Translation | Caption | Classification

MAX_ANSWERS = 100
_PLATE = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' width='64' height='64'%3E"
    "%3Crect width='64' height='64' fill='%23d8d3c8'/%3E%3C/svg%3E"
)


class ReportError(InvalidInputError, ValueError):
    """Answers that no page can be made of; the message says which, and why."""


def describe(answers: Iterable[tuple[Input | None, Answer]]) -> dict[str, Any]:
    """Return the page's document: each answer with its input, its axes and its maps.

    Where an input is None its words are shown as the answer names them, and a plain plate in place of an image.
    Raises `ReportError` if there are no answers or more than a page shows at once, if one came
    without attention, and if all weights together are more than a browser should be asked to hold;
    `OSError` for an image file that can't be read.
    """
    pairs = list(answers)
    if not 1 <= len(pairs) <= MAX_ANSWERS:
        raise ReportError(f"a report shows from 1 to {MAX_ANSWERS} answers, not {len(pairs)}", field="answers")
    for index, (_, answer) in enumerate(pairs):
        if answer.attention is None or not answer.attention.maps:
            raise ReportError(
                f"answers[{index}] has no attention: ask for it, with attention=AttentionOptions(granularity='word')",
                field=f"answers[{index}]",
            )
    weights = sum(weights_of(answer) for _, answer in pairs)
    if weights > MOST_WEIGHTS:
        raise ReportError(
            f"a report holds at most {MOST_WEIGHTS:,} weights, not {weights:,}: "
            "give it fewer answers, or ask for fewer layers and heads",
            field="answers",
        )
    encoding = choose_encoding(weights)
    return {"answers": [_describe(index, given, answer, encoding) for index, (given, answer) in enumerate(pairs)]}


def weights_of(answer: Answer) -> int:
    """Return how many weights the page holds of an answer."""
    return sum(map(_size_of, answer.attention.maps)) if answer.attention else 0


def direction_of(text: str) -> str:
    """Return `rtl` for a text whose first letter is written from right to left, otherwise `ltr` (UAX 9, P2)."""
    for character in text:
        match unicodedata.bidirectional(character):
            case "L":
                return "ltr"
            case "R" | "AL":
                return "rtl"
    return "ltr"


def _describe(index: int, given: Input | None, answer: Answer, encoding: Encoding) -> dict[str, Any]:
    attention, field = _attention_of(answer), f"answers[{index}]"
    text = given if isinstance(given, str) else None
    output = None if isinstance(answer, Classification) else answer.text
    texts = {"source": text, "target": output, "decoder_input": output}
    if isinstance(answer, Translation) and text is None and given is not None:
        raise ReportError(f"{field} is a translation: its input is a text, not an image", field=field)
    if isinstance(answer, Caption) and text is not None:
        raise ReportError(f"{field} is a caption: its input is an image, not a text", field=field)
    try:
        return {
            "task": type(answer).__name__.lower(),
            "source": text,
            "picture": None if isinstance(given, str) else _picture(given, attention.maps),
            "output": output,
            "classes": _classes(answer),
            "out_of_scope": isinstance(answer, Classification) and answer.out_of_scope,
            "truncated": not isinstance(answer, Caption) and answer.truncated,
            "model": f"{answer.model.name}/{answer.model.version}",
            "precision": attention.precision,
            "package_sha256": attention.package_sha256,
            "granularity": attention.granularity,
            "axes": _axes(attention.maps, texts),
            "maps": [_map(one, encoding) for one in attention.maps],
        }
    except ValueError as error:
        raise ReportError(f"{field}: {error}", field=field) from error


def _attention_of(answer: Answer) -> Attention:
    assert answer.attention is not None
    return answer.attention


def _size_of(one: AttentionMap) -> int:
    """Return how many weights the page holds of a map, which it shows with all keys."""
    if one.key_indices is None:
        return one.weights.size
    heads, queries, _ = one.weights.shape
    return int(heads * queries) * len(one.keys)


def _picture(image: bytes | PathLike[str] | None, maps: Sequence[AttentionMap]) -> dict[str, Any] | None:
    """Return the image as the page shows it: a plate of its size where it isn't known, None where there is none."""
    if image is None:
        grid = next((one.key_grid for one in maps if one.key_grid), None)
        return None if grid is None else {"uri": _PLATE, "width": grid.image_width, "height": grid.image_height}
    picture = embed(image if isinstance(image, bytes) else Path(image).read_bytes())
    return {"uri": picture.uri, "width": picture.width, "height": picture.height}


def _classes(answer: Answer) -> list[dict[str, Any]]:
    if not isinstance(answer, Classification):
        return []
    return [{"label": one.label, "probability": round(one.probability, 6)} for one in answer.classes]


def _axes(maps: Sequence[AttentionMap], texts: dict[str, str | None]) -> dict[str, Any]:
    axes: dict[str, Any] = {}
    for one in maps:
        axes[one.query_axis] = _axis(one.queries, one.query_grid, texts.get(one.query_axis))
        axes[one.key_axis] = _axis(one.keys, one.key_grid, texts.get(one.key_axis))
    return axes


def _axis(segments: Sequence[Segment], grid: PatchGrid | None, text: str | None) -> dict[str, Any]:
    """Return the elements of an axis; `spaced` tells whether the text has a space before one, or had room for it."""
    described, end, apart = [], 0, False
    for segment in segments:
        between = " " * (segment.start - end) if text is None else text[end : segment.start]
        spaced = apart or segment.special or any(map(str.isspace, between))
        described.append({"text": segment.text, "special": segment.special, "spaced": spaced})
        end, apart = max(end, segment.end), segment.special
    return {
        "direction": direction_of(text or " ".join(one.text for one in segments if not one.special)),
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


def _map(one: AttentionMap, encoding: Encoding) -> dict[str, Any]:
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

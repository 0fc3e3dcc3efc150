"""Answers as one JSON document: what the page is told, and nothing that it doesn't show."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

from regard.answers import (
    AnsweredQuestion,
    Attention,
    AttentionMap,
    Caption,
    Classification,
    Completion,
    TokenClassification,
    Translation,
)
from regard.errors import InvalidInputError
from regard.report.axes import axes_of, map_of
from regard.viewer import MOST_WEIGHTS, Encoding, choose_encoding, embed

Input: TypeAlias = str | tuple[str, str] | bytes | PathLike[str]
"""What was asked: a text; two, such as a question and its context; or an image file, its bytes or where it lies."""
Answer: TypeAlias = Translation | Caption | Classification | TokenClassification | AnsweredQuestion | Completion

MAX_ANSWERS = 100
_TASKS: dict[type[Answer], str] = {
    Translation: "translation",
    Caption: "caption",
    Classification: "classification",
    TokenClassification: "token_classification",
    AnsweredQuestion: "answered_question",
    Completion: "completion",
}
_TEXT, _TEXTS, _IMAGE = "a text", "two texts", "an image"
_INPUTS: dict[type[Answer], tuple[str, tuple[str, ...]]] = {
    Translation: ("a translation: its input is a text", (_TEXT,)),
    Caption: ("a caption: its input is an image", (_IMAGE,)),
    Classification: ("a classification", (_TEXT, _TEXTS, _IMAGE)),
    TokenClassification: ("a classification of tokens: its input is a text", (_TEXT,)),
    AnsweredQuestion: ("an answered question: its input is the question and its context", (_TEXTS,)),
    Completion: ("a completion: its input is a text", (_TEXT,)),
}
"""What an answer is, and what it may be an answer to."""
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


def _describe(index: int, given: Input | None, answer: Answer, encoding: Encoding) -> dict[str, Any]:
    attention, field = _attention_of(answer), f"answers[{index}]"
    _check_input(given, answer, field)
    texts, image = _texts_and_image(given)
    output = answer.text if isinstance(answer, Translation | Caption | Completion) else None
    texts_of = {"source": texts, "target": _alone(output), "decoder_input": _alone(output)}
    if isinstance(answer, Completion):
        texts_of["decoder_input"] = texts and (texts[0] + answer.text,)
    try:
        return {
            "task": _TASKS[type(answer)],
            "source": texts[0] if texts else None,
            "picture": None if texts else _picture(image, attention.maps),
            "output": output,
            "classes": _bars(answer),
            "out_of_scope": isinstance(answer, Classification) and answer.out_of_scope,
            "marked": texts and _marked(texts, answer),
            "truncated": isinstance(answer, Translation | Classification | TokenClassification) and answer.truncated,
            "model": f"{answer.model.name}/{answer.model.version}",
            "precision": attention.precision,
            "package_sha256": attention.package_sha256,
            "granularity": attention.granularity,
            "axes": axes_of(attention.maps, texts_of),
            "maps": [map_of(one, encoding) for one in attention.maps],
        }
    except ValueError as error:
        raise ReportError(f"{field}: {error}", field=field) from error


def _check_input(given: Input | None, answer: Answer, field: str) -> None:
    """Refuse an input of which there can be no such answer."""
    if given is None:
        return
    kind = _TEXT if isinstance(given, str) else _TEXTS if isinstance(given, tuple) else _IMAGE
    is_what, kinds = _INPUTS[type(answer)]
    if kind not in kinds:
        raise ReportError(f"{field} is {is_what}, not {kind}", field=field)


def _texts_and_image(given: Input | None) -> tuple[tuple[str, ...] | None, bytes | PathLike[str] | None]:
    match given:
        case str():
            return (given,), None
        case tuple():
            return given, None
        case _:
            return None, given


def _alone(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else (text,)


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


def _bars(answer: Answer) -> list[dict[str, Any]]:
    """Return what an answer chooses among, each with its probability."""
    chosen: list[tuple[str, float]] = []
    if isinstance(answer, Classification):
        chosen = [(one.label, one.probability) for one in answer.classes]
    elif isinstance(answer, AnsweredQuestion):
        chosen = [(one.text, one.score) for one in answer.answers]
    return [{"label": label, "probability": round(probability, 6)} for label, probability in chosen]


def _marked(texts: tuple[str, ...], answer: Answer) -> dict[str, Any] | None:
    """Return the text in which an answer found something, and which parts, in code points; None of other answers."""
    if isinstance(answer, TokenClassification):
        spans = [(one.start, one.end, one.label, one.score) for one in answer.entities]
    elif isinstance(answer, AnsweredQuestion):
        spans = [(one.start, one.end, "", one.score) for one in answer.answers[:1] if one.text]
    else:
        return None
    named = [
        {"start": start, "end": end, "label": label, "score": round(score, 6)} for start, end, label, score in spans
    ]
    return {"text": texts[-1], "spans": named}

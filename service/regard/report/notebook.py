"""An answer in a notebook: what it says, the viewer in a frame of its own, and a table for where no script runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from importlib.resources import files

import numpy as np

from regard.answers import (
    AnsweredQuestion,
    AttentionMap,
    Classification,
    PatchGrid,
    Segment,
    TokenClassification,
)
from regard.report.document import Answer, Input, ReportError, describe
from regard.viewer import make_page

MOST_WEIGHTS = 500_000
"""A notebook keeps what it showed: more weights than these are for a report's file."""
_HEAVIEST = 3
_HEADS = {"max": "max of heads", "rollout": "rollout", "alignment_heads": "mean of the alignment heads"}
_FRAME = "width:100%;height:38rem;border:1px solid #8884;border-radius:6px;resize:vertical;overflow:auto"


@dataclass(frozen=True, slots=True)
class Display:
    """An answer beside its input, which a notebook draws: `Display(image, answer)` at the end of a cell."""

    given: Input | None
    answer: Answer

    def _repr_html_(self) -> str:
        return draw_answer(self.answer, self.given)


def draw_answer(answer: Answer, given: Input | None = None) -> str:
    """Return an answer as HTML that stands in any page, and that no text of its can break out of.

    The viewer runs in a frame that may run its own script alone and reaches neither the notebook nor a
    network. Without `given`, a caption's weights lie on a plain plate instead of the image.
    """
    parts = [_headline(answer)]
    match answer:
        case Classification():
            classes = ((one.label, _percent(one.probability)) for one in answer.classes)
            parts.append(_table(("class", "probability"), classes))
        case TokenClassification():
            entities = ((one.text, f"{one.label} {_percent(one.score)}") for one in answer.entities)
            parts.append(_table(("entity", "label"), entities))
        case AnsweredQuestion():
            spans = ((one.text or "no answer", _percent(one.score)) for one in answer.answers)
            parts.append(_table(("answer", "score"), spans))
    if answer.attention is not None and answer.attention.maps:
        parts += [_frame(answer, given), _heaviest(_telling(answer.attention.maps))]
    return f'<div class="regard">{"".join(parts)}</div>'


def _headline(answer: Answer) -> str:
    match answer:
        case Classification():
            said = "Out of scope" if answer.out_of_scope or not answer.classes else answer.classes[0].label
        case TokenClassification():
            said = ", ".join(one.text for one in answer.entities) or "No entities"
        case AnsweredQuestion():
            said = (answer.best and answer.best.text) or "No answer"
        case _:
            said = answer.text
    model = f" <small>{escape(answer.model.name)}/{escape(answer.model.version)}</small>"
    return f'<p dir="auto"><strong>{escape(said)}</strong>{model}</p>'


def _percent(probability: float) -> str:
    return f"{100 * probability:.1f} %"


def _frame(answer: Answer, given: Input | None) -> str:
    assert answer.attention is not None
    weights = sum(one.weights.size for one in answer.attention.maps)
    if weights > MOST_WEIGHTS:
        return f"<p>{weights:,} weights are more than a notebook should keep: write them to a report.</p>"
    try:
        page = make_page(files(__package__).joinpath("frame"), ("page.js",), describe([(given, answer)]))
    except ReportError as error:
        return f"<p>{escape(error.message)}</p>"
    source = escape(page.html)
    return f'<iframe title="Attention" sandbox="allow-scripts" style="{_FRAME}" srcdoc="{source}"></iframe>'


def _telling(maps: tuple[AttentionMap, ...]) -> AttentionMap:
    """Return the map that says most in few words: of the last layer, of cross-attention if there is any."""
    return max(maps, key=lambda one: (one.kind == "cross", one.layer))


def _heaviest(one: AttentionMap) -> str:
    """Return a table of what each word of an output, or else the first token, attends to by the mean of the heads."""
    plane = one.shares().mean(axis=0)
    queries = range(plane.shape[0] if one.query_axis == "target" else min(plane.shape[0], 1))
    rows = ((_name(one.queries, query, one.query_grid), _largest(plane[query], one)) for query in queries)
    heads = _HEADS.get(one.reduction) or ("mean of heads" if len(one.heads) > 1 else "one head")
    layer = "" if one.reduction == "alignment_heads" else f", layer {one.layer}"
    summary = f"What is attended to most: {one.stack} {one.kind}-attention{layer}, {heads}"
    return f"<details><summary>{escape(summary)}</summary>{_table((one.query_axis, one.key_axis), rows)}</details>"


def _largest(row: np.ndarray, one: AttentionMap) -> str:
    order = np.argsort(-row, kind="stable")[:_HEAVIEST]
    return ", ".join(f"{_name(one.keys, int(key), one.key_grid)} {row[key]:.3f}" for key in order)


def _name(segments: tuple[Segment, ...], index: int, grid: PatchGrid | None) -> str:
    """Return what an element is called: a word as it is, a patch by its place from 1."""
    segment = segments[index]
    if grid is None or segment.special:
        return segment.text
    row, column = divmod(sum(not one.special for one in segments[:index]), grid.columns)
    return f"row {row + 1}, column {column + 1}" if row < grid.rows else segment.text


def _table(head: tuple[str, str], rows: Iterator[tuple[str, str]]) -> str:
    body = "".join(f"<tr><td>{escape(one)}</td><td>{escape(other)}</td></tr>" for one, other in rows)
    return f"<table><thead><tr><th>{head[0]}</th><th>{head[1]}</th></tr></thead><tbody>{body}</tbody></table>"

"""Answers in notebooks: what draws them is imported when there is something to draw."""

from __future__ import annotations

from regard.answers import (
    AnsweredQuestion,
    Caption,
    Classification,
    Completion,
    TokenClassification,
    Translation,
    html_of,
)


@html_of.register
def draw(
    answer: Translation | Caption | Classification | TokenClassification | AnsweredQuestion | Completion,
) -> str:
    """Return an answer as HTML for a notebook."""
    from regard.report import draw_answer

    return draw_answer(answer)

"""The report: answers, in one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path

from regard.report.document import Answer, Input, describe
from regard.viewer import make_page


def render(answers: Iterable[tuple[Input, Answer]]) -> str:
    """Return the page of answers that came with attention, each beside the input that it answers.

    No text of theirs can end the element that holds it, and the page's policy lets it run its own
    script alone and fetch nothing. Raises `ReportError` as `describe` does.
    """
    return make_page(files(__package__).joinpath("page"), ("page.js",), describe(answers)).html


def write_report(path: str | Path, answers: Iterable[tuple[Input, Answer]]) -> None:
    """Write the page of `answers` to the file `path`; `render` says more. Raises `OSError` if that can't be."""
    Path(path).write_text(render(answers), "utf-8", newline="\n")

"""The page: its parts, and the document that they show, in one self-contained HTML file."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from regard import __version__
from regard.report.document import Answer, Input, describe

_SCRIPTS = (
    "elements.js",
    "attention.js",
    "ramp.js",
    "view.js",
    "words.js",
    "links.js",
    "matrix.js",
    "picture.js",
    "heads.js",
    "classes.js",
    "answer.js",
    "page.js",
)
_UNSAFE = {ord(character): f"\\u{ord(character):04x}" for character in "<>&"}


def render(answers: Iterable[tuple[Input, Answer]]) -> str:
    """Return the page of answers that came with attention, each beside the input that it answers.

    No text of theirs can end the element that holds it, and the page's policy lets it run its own
    script alone and fetch nothing. Raises `ReportError` as `describe` does.
    """
    style, script = _read("page.css"), "\n".join(map(_read, _SCRIPTS))
    policy = (
        f"default-src 'none'; script-src '{_source_hash(script)}'; style-src '{_source_hash(style)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    return Template(_read("page.html")).substitute(
        policy=policy, style=style, script=script, version=__version__, document=embed_json(describe(answers))
    )


def write_report(path: str | Path, answers: Iterable[tuple[Input, Answer]]) -> None:
    """Write the page of `answers` to the file `path`; `render` says more. Raises `OSError` if that can't be."""
    Path(path).write_text(render(answers), "utf-8", newline="\n")


def embed_json(document: dict[str, Any]) -> str:
    """Return JSON that may stand in a script element: ASCII, and without the characters that mark up."""
    return json.dumps(document, ensure_ascii=True, separators=(",", ":")).translate(_UNSAFE)


def _read(name: str) -> str:
    return files(__package__).joinpath("page", name).read_text("utf-8")


def _source_hash(text: str) -> str:
    """Return how a content security policy names an inline script or style (CSP Level 3, section 2.3.1)."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")

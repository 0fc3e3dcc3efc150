"""Pages around the viewer: their parts and what they show, in one HTML file that fetches nothing."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from string import Template
from typing import Any

from regard import __version__

SCRIPTS = (
    "elements.js",
    "attention.js",
    "ramp.js",
    "view.js",
    "words.js",
    "links.js",
    "matrix.js",
    "picture.js",
    "timeline.js",
    "heads.js",
    "bars.js",
    "marks.js",
    "answer.js",
    "theme.js",
)
_UNSAFE = {ord(character): f"\\u{ord(character):04x}" for character in "<>&"}


@dataclass(frozen=True, slots=True)
class Page:
    """A page, and the content security policy that it needs and states itself (CSP Level 3)."""

    html: str
    policy: str


def make_page(
    parts: Traversable, scripts: Sequence[str], document: Mapping[str, Any], *, connect: str = "'none'"
) -> Page:
    """Return the page of a directory's `page.html` and `page.css`, its `scripts` behind the viewer's own.

    No text of `document` can end the element that holds it. The page runs its own script alone, and
    talks to `connect` alone.
    """
    viewer = files(__package__).joinpath("parts")
    style = "\n".join((_read(viewer, "viewer.css"), _read(parts, "page.css")))
    script = "\n".join((*(_read(viewer, name) for name in SCRIPTS), *(_read(parts, name) for name in scripts)))
    policy = (
        f"default-src 'none'; script-src '{_source_hash(script)}'; style-src '{_source_hash(style)}'; "
        f"img-src data:; connect-src {connect}; base-uri 'none'; form-action 'none'"
    )
    html = Template(_read(parts, "page.html")).substitute(
        policy=policy, style=style, script=script, version=__version__, document=embed_json(document)
    )
    return Page(html, policy)


def embed_json(document: Mapping[str, Any]) -> str:
    """Return JSON that may stand in a script element: ASCII, and without the characters that mark up."""
    return json.dumps(document, ensure_ascii=True, separators=(",", ":")).translate(_UNSAFE)


def _read(directory: Traversable, name: str) -> str:
    return directory.joinpath(name).read_text("utf-8")


def _source_hash(text: str) -> str:
    """Return how a content security policy names an inline script or style (CSP Level 3, section 2.3.1)."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")

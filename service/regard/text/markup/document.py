"""A document with markup: the text to translate, and what stands around and between its words."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from enum import Enum

from regard.errors import InvalidInputError
from regard.text.characters import check_readable
from regard.text.markup.html import read_html
from regard.text.markup.placeholders import split
from regard.text.markup.tokens import MOST_CHARACTERS, Kind, Token
from regard.text.markup.xliff import read_xliff

_NO_SPACE_BEFORE = frozenset(",.;:!?)]}…")


class Markup(Enum):
    """The languages of markup."""

    HTML = "html"
    XLIFF = "xliff"


_READERS: dict[Markup, Callable[[str, str], list[Token]]] = {Markup.HTML: read_html, Markup.XLIFF: read_xliff}


@dataclass(slots=True)
class Node:
    """An element, or a mark: an empty tag or a placeholder, which has no `closing` and no `children`.

    It stands over [start, end) of the document's text, in code points. `spaced` tells whether there
    is white space right before and right after it, `solid` whether it stands for a word.
    """

    opening: str
    start: int
    solid: bool = False
    end: int = 0
    closing: str = ""
    spaced: tuple[bool, bool] = (False, False)
    children: list[Node] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Document:
    """What to translate, and the nodes that go back into the translation."""

    text: str
    nodes: list[Node]


def read_document(document: str, markup: Markup, field: str) -> Document:
    """Return a document, read.

    Placeholders, addresses and elements that are kept as they are taken out of the text: models copy them badly,
    and what is around them suffers. Raises `InvalidInputError`, naming `field`, for malformed
    markup, for a document without text, and as `check_readable`.
    """
    check_readable(document, field)
    if len(document) > MOST_CHARACTERS:
        raise InvalidInputError(
            f"{field} has {len(document)} characters, tags included; with markup at most {MOST_CHARACTERS} are taken; "
            "send it in parts",
            field=field,
        )
    builder = _Builder()
    builder.build(list(_parts(_READERS[markup](document, field))))
    if not builder.text.strip():
        raise InvalidInputError(
            f"{field} holds no text beside its markup and placeholders; it needs at least 1 character that is not "
            "white space",
            field=field,
        )
    return Document(builder.text, builder.root.children)


def _parts(tokens: list[Token]) -> Iterator[Token]:
    """Yield the tokens, with the placeholders of their texts as empty tags."""
    for token in tokens:
        if token.kind is not Kind.TEXT:
            yield token
            continue
        for part, is_placeholder in split(token.text):
            if is_placeholder:
                yield Token(Kind.EMPTY, html.escape(part, quote=False), token.at, solid=True)
            else:
                yield replace(token, text=part)


class _Builder:
    """Puts the text together, and the nodes above it."""

    def __init__(self) -> None:
        self.text = ""
        self.root = Node("", 0)
        self._open = [self.root]
        self._joining = False
        self._touched: list[Node] = []
        """The nodes that begin or end right here."""

    def build(self, parts: list[Token]) -> None:
        for index, part in enumerate(parts):
            before = parts[index - 1].text[-1:].isspace() if index else False
            after = parts[index + 1].text[:1].isspace() if index + 1 < len(parts) else False
            if part.kind is Kind.TEXT:
                self._write(part.text)
                continue
            if part.parted and self.text and not self.text[-1].isspace():
                self.text += " "
            if part.kind is Kind.CLOSING:
                node = self._open.pop()
                node.end, node.closing, node.spaced = len(self.text), part.raw, (node.spaced[0], after)
                node.solid = any(child.solid for child in node.children)
                self._touched.append(node)
                continue
            place = len(self.text)
            node = Node(part.raw, place, part.solid, place, spaced=(before, after))
            self._open[-1].children.append(node)
            self._touched.append(node)
            if part.kind is Kind.OPENING:
                self._open.append(node)
            self._joining |= part.solid

    def _write(self, text: str) -> None:
        """Add `text`, without the white space that a placeholder before it leaves over."""
        if self._joining and (not self.text or self.text[-1].isspace()):
            text = text.lstrip()
            if text[:1] in _NO_SPACE_BEFORE:
                self._strip()
        self._joining = self._joining and not text
        if text:
            self._touched.clear()
        self.text += text

    def _strip(self) -> None:
        self.text = self.text.rstrip()
        for node in self._touched:
            node.start, node.end = min(node.start, len(self.text)), min(node.end, len(self.text))

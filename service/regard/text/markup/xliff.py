"""The inline elements of XLIFF 1.2 and 2.0 to tokens."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace
from itertools import accumulate
from xml.parsers import expat

from regard.text.markup.tokens import Kind, Token, check_nested, refused, without_kept

_ROOT = "regard"
_SPANNING = frozenset({"g", "mrk", "pc"})
_CODES = frozenset({"bpt", "ept", "ph", "it"})
"""What these hold is code of the original format, not text."""
_EMPTY = frozenset({"x", "bx", "ex", "sc", "ec", "cp", "sm", "em"})
_BEGINS = {"bx": "ex", "bpt": "ept", "sc": "ec", "sm": "em"}


def read_xliff(document: str, field: str) -> list[Token]:
    """Return the tokens of the content of an XLIFF `source` or `segment`.

    It is XML without a document type, so that there is no entity but the five of XML and characters
    by number. Two tags that begin and end something (bx and ex, bpt and ept, sc and ec, sm and em)
    go together like those of one element, if they nest. Raises `InvalidInputError`, naming `field`
    and the position, for what isn't well-formed and for elements that XLIFF has no inline place for.
    """
    tokens = _Reader(document, field).read()
    check_nested(tokens, field)
    paired = _paired(list(without_kept(tokens)))
    check_nested(paired, field)
    return paired


def _paired(tokens: list[Token]) -> list[Token]:
    """Return the tokens, where the tag that begins something and its end are an element if what's within nests.

    They do if both are in one element and nothing that began between them has its end behind them.
    """
    paired = list(tokens)
    begun: list[dict[tuple[str, str], int]] = [{}]
    for index, token in enumerate(tokens):
        if token.kind is Kind.OPENING:
            begun.append({})
        elif token.kind is Kind.CLOSING:
            begun.pop()
        elif token.name in _BEGINS and token.pair:
            begun[-1][_BEGINS[token.name], token.pair] = index
        elif token.name and (token.name, token.pair) in begun[-1]:
            first = begun[-1][token.name, token.pair]
            paired[first] = replace(tokens[first], kind=Kind.OPENING)
            paired[index] = replace(token, kind=Kind.CLOSING, name=tokens[first].name)
            while begun[-1].popitem()[1] != first:
                pass
    return paired


def _pair_of(attributes: dict[str, str]) -> str:
    return attributes.get("rid") or attributes.get("startRef") or attributes.get("id", "")


class _Reader:
    """Notes where each thing begins, in the bytes that expat counts; it ends where the next one does."""

    def __init__(self, document: str, field: str) -> None:
        self._document, self._field = document, field
        self._found: list[tuple[int, Kind, str, str, dict[str, str]]] = []
        self._lead = len(f"<{_ROOT}>")
        self._offsets = list(accumulate((len(character.encode()) for character in document), initial=0))
        self._parser = expat.ParserCreate("utf-8")
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = lambda text: self._note(Kind.TEXT, "", text)
        self._parser.CommentHandler = lambda _: self._note(Kind.EMPTY)
        self._parser.ProcessingInstructionHandler = lambda *_: self._note(Kind.EMPTY)
        self._parser.StartCdataSectionHandler = lambda: self._note(Kind.TEXT)
        self._parser.EndCdataSectionHandler = lambda: self._note(Kind.TEXT)

    def read(self) -> list[Token]:
        try:
            self._parser.Parse(f"<{_ROOT}>{self._document}</{_ROOT}>".encode(), True)
        except expat.ExpatError as error:
            place = self._place(self._parser.ErrorByteIndex)
            problem = expat.ErrorString(error.code)
            raise refused(self._field, f"this is no well-formed XML ({problem})", place) from None
        inner = self._found[1:-1]
        ends = [at for at, *_ in inner[1:]] + [len(self._document)]
        tokens: list[Token] = []
        for (at, kind, name, text, attributes), end in zip(inner, ends, strict=True):
            raw = self._document[at:end]
            if kind is Kind.CLOSING and not raw:
                tokens[-1] = replace(tokens[-1], kind=Kind.EMPTY)
            elif kind is Kind.TEXT and tokens and tokens[-1].kind is Kind.TEXT:
                tokens[-1] = replace(tokens[-1], raw=tokens[-1].raw + raw, text=tokens[-1].text + text)
            else:
                protected = attributes.get("mtype") == "protected" or attributes.get("translate") == "no"
                kept = kind is Kind.OPENING and (name in _CODES or protected)
                tokens.append(Token(kind, raw, at, name, text, kept, solid=protected, pair=_pair_of(attributes)))
        return tokens

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if self._found and name not in _SPANNING | _CODES | _EMPTY | {"sub"} and ":" not in name:
            place = self._place(self._parser.CurrentByteIndex)
            raise refused(self._field, f"<{name}> is no inline element of XLIFF", place)
        self._note(Kind.OPENING, name, attributes=attributes)

    def _end(self, name: str) -> None:
        self._note(Kind.CLOSING, name)

    def _note(self, kind: Kind, name: str = "", text: str = "", attributes: dict[str, str] | None = None) -> None:
        self._found.append((self._place(self._parser.CurrentByteIndex), kind, name, text, attributes or {}))

    def _place(self, byte: int) -> int:
        return min(bisect_left(self._offsets, byte - self._lead), len(self._document))

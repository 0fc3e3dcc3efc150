"""HTML to tokens."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser
from itertools import accumulate

from regard.text.markup.tokens import Kind, Token, check_nested, refused, without_kept

VOID = frozenset(re.findall(r"\w+", "area base br col embed hr img input link meta param source track wbr"))
_KEPT = frozenset({"script", "style"})
_PARTED = frozenset(
    re.findall(
        r"\w+",
        "address article aside blockquote br caption dd div dl dt figcaption figure footer form h1 h2 h3 h4 h5 h6 "
        "header hr li main nav ol option p pre section table tbody td tfoot th thead title tr ul",
    )
)
_TAG_BEGINS = re.compile(r"<[a-zA-Z/!?]")
_WHOLE_TAG = re.compile(
    r"""<!--.*?-->|<[!?][^>]*>|<(?:(?P<raw>script|style)\b|/?[a-z])(?:"[^"]*"|'[^']*'|[^"'<>])*>""",
    re.DOTALL | re.IGNORECASE,
)
_UNKNOWN_SECTION = re.compile(r"<!\[(?!(?:cdata|rcdata|temp|ignore|include|if|else|endif)(?![-.\w]))", re.IGNORECASE)
"""What begins as a marked section, but is none of those that the parser reads."""


def read_html(document: str, field: str) -> list[Token]:
    """Return the tokens of a fragment of HTML.

    Raises `InvalidInputError`, naming `field` and the position, for a tag that isn't closed, even
    where HTML lets one be left out: a tag that nobody wrote can't come back. So it does for a marked
    section of an unknown name.
    """
    _check_ends(document, field)
    tokens = _Reader(document, field).read()
    check_nested(tokens, field)
    return list(without_kept(tokens))


def _check_ends(document: str, field: str) -> None:
    """Raise `InvalidInputError` for the first tag without an end, at which the parser would look again and again."""
    found = _TAG_BEGINS.search(document)
    while found:
        whole = _WHOLE_TAG.match(document, found.start())
        if whole and whole["raw"]:
            whole = re.compile(rf"(?is).*?</{whole['raw']}\s*>").match(document, whole.end())
        if not whole:
            raise refused(field, "a tag has no end; write &lt; for the character <", found.start())
        found = _TAG_BEGINS.search(document, whole.end())


class _Reader(HTMLParser):
    """Notes where each tag begins; it ends where the next thing does."""

    def __init__(self, document: str, field: str) -> None:
        super().__init__(convert_charrefs=False)
        self._document, self._field = document, field
        self._lines = [0, *accumulate(len(line) + 1 for line in document.split("\n"))]
        self._found: list[tuple[int, Kind, str, bool, bool]] = []

    def read(self) -> list[Token]:
        self.feed(self._document)
        self.close()
        ends = [at for at, *_ in self._found[1:]] + [len(self._document)]
        tokens: list[Token] = []
        for (at, kind, name, kept, solid), end in zip(self._found, ends, strict=True):
            raw = self._document[at:end]
            if kind is Kind.TEXT and tokens and tokens[-1].kind is Kind.TEXT:
                at, raw = tokens[-1].at, tokens.pop().raw + raw
            text = html.unescape(raw) if kind is Kind.TEXT else ""
            tokens.append(Token(kind, raw, at, name, text, kept, solid, parted=name in _PARTED))
        return tokens

    def parse_html_declaration(self, i: int) -> int:
        if _UNKNOWN_SECTION.match(self.rawdata, i):
            raise refused(self._field, "<![ begins no section that is known; write &lt; for the character <", self._at)
        return super().parse_html_declaration(i)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        untranslated = ("translate", "no") in attrs
        kind = Kind.EMPTY if tag in VOID else Kind.OPENING
        self._note(kind, tag, tag in _KEPT or untranslated, untranslated)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._note(Kind.EMPTY, tag)

    def handle_endtag(self, tag: str) -> None:
        self._note(Kind.EMPTY if tag in VOID else Kind.CLOSING, tag)

    def handle_data(self, data: str) -> None:
        self._note(Kind.TEXT)

    def handle_entityref(self, name: str) -> None:
        self._note(Kind.TEXT)

    def handle_charref(self, name: str) -> None:
        self._note(Kind.TEXT)

    def handle_comment(self, data: str) -> None:
        self._note(Kind.EMPTY)

    def handle_decl(self, decl: str) -> None:
        self._note(Kind.EMPTY)

    def handle_pi(self, data: str) -> None:
        self._note(Kind.EMPTY)

    def unknown_decl(self, data: str) -> None:
        self._note(Kind.EMPTY)

    def _note(self, kind: Kind, name: str = "", kept: bool = False, solid: bool = False) -> None:
        self._found.append((self._at, kind, name, kept, solid))

    @property
    def _at(self) -> int:
        line, column = self.getpos()
        return self._lines[line - 1] + column

"""A translation with its markup."""

from __future__ import annotations

import html
from collections.abc import Sequence

from regard.text.markup.projection import Placed, Range

_CLOSES = frozenset(",.;:!?)]}…")
_OPENS = frozenset("([{'’")


def write_document(text: str, words: Sequence[Range], placed: Sequence[Placed]) -> str:
    """Return the translation `text`, of `words` at these spans, with the nodes where they were `placed`.

    Its characters &, < and > are escaped. White space stays outside of tags; what stands for a word
    gets a space on either side where it had one in the source.
    """
    writer = _Writer(text, words)
    writer.write(placed, 0, len(text))
    return "".join(writer.pieces)


class _Writer:
    def __init__(self, text: str, words: Sequence[Range]) -> None:
        self._text, self._words = text, words
        self.pieces: list[str] = []
        self._last = ""
        """The last character that isn't a tag's."""

    def write(self, placed: Sequence[Placed], start: int, end: int) -> None:
        """Write the text [start, end) and what is placed within it."""
        for one in placed:
            if one.start < one.end:
                opening, closing = self._words[one.start][0], self._words[one.end - 1][1]
                self._copy(start, opening)
                self._element(one, opening, closing)
                start = closing
            else:
                start = self._gap(one, start, end)
        self._copy(start, end)

    def _gap(self, one: Placed, start: int, end: int) -> int:
        """Write what stands between two words; return how far the text is written."""
        left = max(start, self._words[one.start - 1][1] if one.start else 0)
        right = min(end, self._words[one.start][0] if one.start < len(self._words) else len(self._text))
        before, after = one.node.spaced
        place = right if before and (one.node.solid or not after) else left
        self._copy(start, place)
        if one.node.solid and before and self._last and not self._last.isspace() and self._last not in _OPENS:
            self._put(" ", " ")
        self._element(one, place, place)
        following = self._text[place : place + 1]
        if one.node.solid and after and following and not following.isspace() and following not in _CLOSES:
            self._put(" ", " ")
        return place

    def _element(self, one: Placed, start: int, end: int) -> None:
        self._put(one.node.opening, "x" if one.node.solid and not one.node.closing else "")
        self.write(one.children, start, end)
        self._put(one.node.closing)

    def _copy(self, start: int, end: int) -> None:
        self._put(html.escape(self._text[start:end], quote=False), self._text[start:end][-1:])

    def _put(self, piece: str, last: str = "") -> None:
        self.pieces.append(piece)
        self._last = last or self._last

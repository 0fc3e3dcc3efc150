"""What a document with markup is cut into, whatever its language of markup."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum

from regard.errors import InvalidInputError

MOST_CHARACTERS = 2**17
MOST_TAGS = 4096
MOST_DEPTH = 100
"""What a document may come to, tags included: far beyond what a text of a model's length is marked up with."""


class Kind(Enum):
    """What a token is."""

    TEXT = "text"
    OPENING = "opening"
    CLOSING = "closing"
    EMPTY = "empty"


@dataclass(frozen=True, slots=True)
class Token:
    """A tag, or a stretch of text; the `raw` of all tokens, put together, is the document.

    `at` is where it begins, in code points. `text` is the text without escapes, and empty for a tag.
    """

    kind: Kind
    raw: str
    at: int
    name: str = ""
    text: str = ""
    kept: bool = False
    """Of an opening tag: whether what it holds is kept as it is."""
    solid: bool = False
    """Whether it stands for a word, which white space goes around."""
    parted: bool = False
    """Whether words on its two sides are apart even without white space, as those of two paragraphs are."""
    pair: str = ""
    """What an empty tag that begins something shares with the one that ends it."""


def refused(field: str, problem: str, at: int) -> InvalidInputError:
    """Return the error of a document that can't be read: the field, the problem and its position."""
    return InvalidInputError(f"{field}: {problem}, at position {at}", field=field)


def closing_of(tokens: list[Token], opening: int) -> int | None:
    """Return the index of the tag that closes the one at `opening`; None if there is none."""
    depth = 0
    for index in range(opening, len(tokens)):
        depth += (tokens[index].kind is Kind.OPENING) - (tokens[index].kind is Kind.CLOSING)
        if depth == 0:
            return index
    return None


def without_kept(tokens: list[Token]) -> Iterator[Token]:
    """Yield the tokens, where an element that is kept as it is has become one empty tag."""
    index = 0
    while index < len(tokens):
        token = tokens[index]
        last = closing_of(tokens, index) if token.kind is Kind.OPENING and token.kept else None
        if last is not None:
            raw = "".join(part.raw for part in tokens[index : last + 1])
            token, index = replace(token, kind=Kind.EMPTY, raw=raw), last
        yield token
        index += 1


def check_nested(tokens: list[Token], field: str) -> None:
    """Raise `InvalidInputError` unless every opening tag is closed, in order, by one of its name, within the limits."""
    tags = [token for token in tokens if token.kind is not Kind.TEXT]
    if len(tags) > MOST_TAGS:
        raise refused(field, f"there are more than {MOST_TAGS} tags, the most that are taken", tags[MOST_TAGS].at)
    opened: list[Token] = []
    for token in tokens:
        if token.kind is Kind.OPENING:
            opened.append(token)
            if len(opened) > MOST_DEPTH:
                raise refused(field, f"elements are nested more than {MOST_DEPTH} deep", token.at)
        elif token.kind is Kind.CLOSING:
            if not opened:
                raise refused(field, f"</{token.name}> closes nothing", token.at)
            last = opened.pop()
            if last.name != token.name:
                raise refused(field, f"</{token.name}> closes <{last.name}> of position {last.at}", token.at)
    if opened:
        raise refused(field, f"<{opened[-1].name}> is never closed", opened[-1].at)

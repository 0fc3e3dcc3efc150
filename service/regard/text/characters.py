"""What every text must be, whatever reads it."""

from __future__ import annotations

import re

from regard.errors import InvalidInputError

_UNREADABLE = re.compile("[\0\ud800-\udfff]")


def check_readable(text: str, field: str) -> None:
    """Raise `InvalidInputError`, naming `field`, for a text without anything to read, and as `check_characters`."""
    if not text:
        raise InvalidInputError(f"{field} is empty; it needs at least 1 character that is not white space", field=field)
    if text.isspace():
        raise InvalidInputError(
            f"{field} is nothing but white space; it needs at least 1 character that is not", field=field
        )
    check_characters(text, field)


def check_characters(text: str, field: str) -> None:
    """Raise `InvalidInputError`, naming `field` and the position, for a NUL and for a lone surrogate."""
    found = _UNREADABLE.search(text)
    if found:
        code = ord(found[0])
        problem = f"a lone surrogate (U+{code:04X})" if code else "a NUL (U+0000)"
        raise InvalidInputError(
            f"{field} holds {problem} at position {found.start()}, which is no text; remove it", field=field
        )

"""Placeholders and addresses: what stands in a text but is no language."""

from __future__ import annotations

import re
from collections.abc import Iterator

_PLACEHOLDER = re.compile(
    r"""
      (?:https?://|ftp://|www\.)[^\s<>"]*[^\s<>"'.,;:!?)\]]   # an address, without the sentence's own stop
    | \{\{[^{}\n]*\}\}                                          # {{name}}
    | \$?\{[^{}\n]*\}                                           # {name}, {0}, {name:>10}, ${name}
    | %\([^()\s]+\)[#0+-]*\d*(?:\.\d+)?[a-zA-Z]                 # %(name)s
    | (?<![\d%])%(?:\d+\$)?[#0+-]*\d*(?:\.\d+)?(?:hh?|ll?|z)?[sdiufFeEgGxXcor@](?!\w)   # %s, %5.2f, %1$s
    """,
    re.VERBOSE,
)


def split(text: str) -> Iterator[tuple[str, bool]]:
    """Yield the parts of `text`, none of them empty, each with whether it's a placeholder."""
    end = 0
    for found in _PLACEHOLDER.finditer(text):
        if found.start() > end:
            yield text[end : found.start()], False
        yield found[0], True
        end = found.end()
    if end < len(text):
        yield text[end:], False

"""One token or word, and where it stands in its text."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Segment:
    """A token or a word of a text.

    `text` is the token as the vocabulary spells it, or the word. `start` and `end` (exclusive)
    are in Unicode code points. They are equal for a special token, which stands nowhere, and for
    a token that is nothing but white space. `token_id` is None for a word of several tokens.
    """

    text: str
    start: int
    end: int
    special: bool
    token_id: int | None
    part: int = 0
    """Which text of a pair it stands in: 0 or 1. A special token has that of the token before it."""

    def moved(self, by: int) -> Segment:
        """Return the segment in a text that has `by` code points before this one's."""
        return replace(self, start=self.start + by, end=self.end + by)

    def within(self, length: int) -> Segment:
        """Return the segment in a text that is cut to `length`; what is beyond stands nowhere."""
        return replace(self, start=min(self.start, length), end=min(self.end, length)) if self.end > length else self


def trim(text: str, start: int, end: int) -> tuple[int, int]:
    """Return the span without the white space at its ends; an empty one stands where it ended."""
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    return start, end

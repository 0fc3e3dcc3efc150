"""Stop strings: where a text ends, and what of a text could still be the beginning of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from regard.text.detokenizer import Vocabulary

_MOST_TOKENS_PER_CHARACTER = 4
_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"
_CONTEXT = 8
"""Tokens before those that a stop string can have, so that none of these is decoded as the first of its text."""


@dataclass(frozen=True, slots=True)
class StopStrings:
    """The strings that end a text; it is cut before the first of them."""

    strings: tuple[str, ...]

    def cut(self, text: str) -> str:
        """Return what stands before the first stop string, all of `text` if there is none."""
        return text[: min((at for at in map(text.find, self.strings) if at >= 0), default=len(text))]

    def settled(self, text: str) -> int:
        """Return how much of `text` no stop string can swallow, whatever comes next."""
        return min((len(text) - _overlap(text, string) for string in self.strings), default=len(text))

    def ends_within_last(self, vocabulary: Vocabulary, token_ids: Sequence[int]) -> bool:
        """Tell whether a stop string ends within the last of `token_ids`."""
        longest = max(map(len, self.strings))
        window = _last(vocabulary, token_ids, _MOST_TOKENS_PER_CHARACTER * longest)
        text = vocabulary.decode(window)
        before = len(vocabulary.decode(window[:-1]).rstrip(_INCOMPLETE))
        return any(text.find(string, max(before - len(string) + 1, 0)) >= 0 for string in self.strings)


class StopFilter:
    """Holds back, of a text that comes piece by piece, what a stop string could still swallow."""

    def __init__(self, stops: StopStrings) -> None:
        self._stops = stops
        self._held = ""

    def push(self, piece: str) -> str:
        """Return what is settled now."""
        text = self._held + piece
        settled = self._stops.settled(text)
        self._held = text[settled:]
        return text[:settled]

    def finish(self) -> str:
        """Return what was held back, up to the stop string, when no more comes."""
        return self._stops.cut(self._held)


def _last(vocabulary: Vocabulary, token_ids: Sequence[int], count: int) -> Sequence[int]:
    """Return the last tokens with a text, at least `count`, behind others of which one at least can be seen.

    A text's decoder may take all the spaces away that it begins with, as Marian's does.
    """
    spoken = [token_id for token_id in token_ids if token_id not in vocabulary.special_ids]
    context, start = _CONTEXT, len(spoken) - count - _CONTEXT
    while start > 0 and not vocabulary.decode(spoken[start : start + context]).strip():
        context *= 2
        start -= context
    return spoken[max(start, 0) :]


def _overlap(text: str, string: str) -> int:
    """Return how long the end of `text` is from where `string` could begin or begins; 0 if nowhere."""
    at = text.find(string)
    if at >= 0:
        return len(text) - at
    return max(size for size in range(len(string)) if text.endswith(string[:size]))

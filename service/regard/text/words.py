"""Words: which tokens make up each."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Regex
from tokenizers.pre_tokenizers import Split

from regard.text.segment import Segment

# Scripts that put no space between words: each character is a word, unless one token spans several.
UNSPACED = r"\p{Han}\p{Hiragana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
SPACED = rf"[\w&&[^{UNSPACED}]]+"
# \X is a user-perceived character, such as an emoji with its skin tone (UAX 29, section 3).
_WORD = Split(Regex(rf"(?=[{UNSPACED}])\X|{SPACED}(?:['’-]{SPACED})*|(?!\s)\X"), "isolated")


@dataclass(frozen=True, slots=True)
class Word:
    """A word and the indices of its tokens, in ascending order."""

    segment: Segment
    tokens: tuple[int, ...]


def words_of(text: str, segments: Sequence[Segment]) -> list[Word]:
    """Return the words of `text`, in order of their first tokens; each of `segments` is in exactly one.

    A word is a run of letters, marks and digits with inner apostrophes and hyphens; any other
    character is a word of its own. A token belongs to the word where it starts, and a word where
    none starts joins the one before whose token covers it. Special tokens are words of their own.
    Of a text that was cut, the last word is what the last token left of it.
    """
    spans = _spans_of(text[: max((segment.end for segment in segments), default=0)])
    starts = [start for start, _ in spans]
    members: dict[int, list[int]] = {}
    for index, segment in enumerate(segments):
        alone = segment.special or not spans
        members.setdefault(len(spans) + index if alone else _word_at(spans, starts, segment), []).append(index)
    words = []
    for number, tokens in members.items():
        first = segments[tokens[0]]
        if number >= len(spans):
            words.append(Word(first, tuple(tokens)))
            continue
        start, end = spans[number]
        covered = max(segments[token].end for token in tokens)
        for following in range(number + 1, len(spans)):
            if following in members or starts[following] >= covered:
                break
            end = spans[following][1]
        token_id = first.token_id if len(tokens) == 1 else None
        words.append(Word(Segment(text[start:end], start, end, False, token_id), tuple(tokens)))
    return words


def _spans_of(text: str) -> list[tuple[int, int]]:
    return [span for piece, span in _WORD.pre_tokenize_str(text) if not piece.isspace()]


def _word_at(spans: Sequence[tuple[int, int]], starts: Sequence[int], segment: Segment) -> int:
    """Return the word that holds the segment's start, or the next, or the last."""
    number = bisect_right(starts, segment.start) - 1
    if number < 0 or segment.start >= spans[number][1]:
        number += 1
    return min(number, len(spans) - 1)

"""Unknown words: what a vocabulary has no token for, copied from the source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from regard.attention.alignment import spoken_words
from regard.attention.axes import Passage
from regard.attention.heads import FloatArray
from regard.manifest import AlignmentSpec
from regard.text.segment import Segment


@dataclass(slots=True)
class _Gap:
    """A part of the text that holds unknown `tokens`, and the place of the source word that is copied there."""

    start: int
    end: int
    word: int
    share: float
    tokens: list[int]


def copy_unknowns(
    spec: AlignmentSpec, weights: FloatArray, source: Passage, target: Passage, unknown_id: int
) -> tuple[Passage, dict[int, int]]:
    """Return `target` with a source word for each word that holds an unknown token, and the places of both.

    They are those of the unknown tokens, each with that of its source word among the spoken ones.

    In the text, unknown tokens are spelled out. Each takes the word that it attends to most (Luong et
    al. 2015, Addressing the rare word problem in neural machine translation, section 3; OpenNMT's
    replace_unk) in `weights` [T, S], the mean of the alignment heads, balanced as links are, so that a
    word at which every token looks isn't taken for it. An unknown token among letters stands for a part
    of a word, which the source word replaces as a whole; neighbours that look at one word bring it once.
    The segments of the tokens of such a word all span what is copied.
    """
    words = spoken_words(source)
    gaps = _gaps(spec, weights, [word.tokens for word in words], target, unknown_id) if words else []
    text, copied_until = "", 0
    moves: list[tuple[_Gap, int, int]] = []
    copied: dict[int, int] = {}
    for gap in gaps:
        text += target.text[copied_until : gap.start]
        start, copied_until = len(text), gap.end
        text += words[gap.word].segment.text
        moves.append((gap, start, len(text)))
        copied |= dict.fromkeys(gap.tokens, gap.word)
    text += target.text[copied_until:]
    return Passage(text, tuple(_moved(segment, moves) for segment in target.segments)), copied


def _moved(segment: Segment, moves: Sequence[tuple[_Gap, int, int]]) -> Segment:
    """Return where a token stands now; `moves` tells of each gap where its word starts and ends."""
    shift = 0
    for gap, start, end in moves:
        if segment.end <= gap.start:
            break
        if segment.start < gap.end:
            return replace(segment, start=end if segment.start == segment.end else start, end=end)
        shift = end - gap.end
    return segment.moved(shift)


def _gaps(
    spec: AlignmentSpec, weights: FloatArray, words: Sequence[tuple[int, ...]], target: Passage, unknown_id: int
) -> list[_Gap]:
    pooled = np.stack([weights[:, list(word)].sum(axis=1) for word in words], axis=1)
    _, shares = spec.align(pooled)
    gaps: list[_Gap] = []
    for row, segment in enumerate(target.segments):
        if segment.token_id != unknown_id or segment.start == segment.end:
            continue
        start, end = _widened(target.text, segment.start, segment.end)
        found = _Gap(start, end, int(shares[row].argmax()), float(shares[row].max()), [row])
        last = gaps[-1] if gaps else None
        if last is not None and found.start < last.end:
            if found.share > last.share:
                last.word, last.share = found.word, found.share
            last.end = max(last.end, found.end)
            last.tokens.append(row)
        elif last is not None and found.word == last.word and not target.text[last.end : found.start].strip():
            last.end = found.end
            last.tokens.append(row)
        else:
            gaps.append(found)
    return gaps


def _widened(text: str, start: int, end: int) -> tuple[int, int]:
    """Return the span with the letters and digits that adjoin it."""
    while start > 0 and text[start - 1].isalnum():
        start -= 1
    while end < len(text) and text[end].isalnum():
        end += 1
    return start, end

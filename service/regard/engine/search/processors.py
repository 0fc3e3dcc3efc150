"""What a request's options do to the scores of its next token, named as in Transformers.

A ban takes tokens out; the repetition penalty moves the scores of tokens that were there before.
Both touch few tokens, which `shortlist` makes use of. `sequence` is always what the decoder has
read so far: the start token or the prompt, the prefix and every generated token.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from regard.engine.request import FloatArray
from regard.engine.search.timestamps import Timestamps

TokenArray = npt.NDArray[np.int64]


class Ban(Protocol):
    """A rule that takes tokens out of the choice."""

    def banned(self, sequence: Sequence[int]) -> Collection[int]:
        """Return the tokens that may not come next."""


@dataclass(frozen=True, slots=True)
class NoRepeatNGram:
    """No n-gram of the sequence comes twice."""

    size: int

    def banned(self, sequence: Sequence[int]) -> Collection[int]:
        """Return every token that has followed the last `size - 1` tokens before."""
        prefix = sequence[len(sequence) + 1 - self.size :]
        ends = range(self.size - 1, len(sequence))
        return {sequence[end] for end in ends if sequence[end + 1 - self.size : end] == prefix}


@dataclass(frozen=True, slots=True)
class NoBadWords:
    """None of these sequences of tokens comes; the end of the sentence alone can't be one of them."""

    words: tuple[tuple[int, ...], ...]

    def banned(self, sequence: Sequence[int]) -> Collection[int]:
        """Return the last token of every word whose other tokens end the sequence."""
        return {
            word[-1]
            for word in self.words
            if len(word) <= len(sequence) + 1 and tuple(sequence[len(sequence) + 1 - len(word) :]) == word[:-1]
        }


@dataclass(frozen=True, slots=True)
class MinLength:
    """No end of the sentence before the sequence has `length` tokens."""

    length: int
    eos_token_ids: tuple[int, ...]

    def banned(self, sequence: Sequence[int]) -> Collection[int]:
        """Return the end of the sentence while the sequence is too short."""
        return self.eos_token_ids if len(sequence) < self.length else ()


@dataclass(frozen=True, slots=True)
class SuppressTokens:
    """These tokens never come."""

    tokens: tuple[int, ...]

    def banned(self, sequence: Sequence[int]) -> Collection[int]:
        """Return the same tokens always."""
        return self.tokens


@dataclass(frozen=True, slots=True)
class SuppressTokensAtBegin:
    """These tokens don't come when the sequence has exactly `length` tokens."""

    tokens: tuple[int, ...]
    length: int

    def banned(self, sequence: Sequence[int]) -> Collection[int]:
        """Return the tokens at the one position."""
        return self.tokens if len(sequence) == self.length else ()


@dataclass(frozen=True, slots=True)
class RepetitionPenalty:
    """Divides the positive scores of tokens that were there before by `penalty`, and multiplies the negative.

    Keskar et al., CTRL (2019), section 4.1.
    """

    penalty: float

    def __call__(self, scores: FloatArray) -> FloatArray:
        """Return the penalised `scores` of tokens that were there before."""
        penalty = np.float32(self.penalty)
        return np.where(scores < 0, scores * penalty, scores / penalty)


@dataclass(frozen=True, slots=True)
class Processors:
    """All that a request does to the scores of its rows."""

    bans: tuple[Ban, ...] = ()
    penalty: RepetitionPenalty | None = None
    timestamps: Timestamps | None = None
    """Looks at all scores, once the others are done."""

    @property
    def constant(self) -> bool:
        """Whether the same tokens are banned in every step, and nothing else is done."""
        plain = self.penalty is None and self.timestamps is None
        return plain and all(isinstance(ban, SuppressTokens) for ban in self.bans)

    @property
    def always_banned(self) -> int:
        """The number of tokens that are banned in every step."""
        return len({token for ban in self.bans if isinstance(ban, SuppressTokens) for token in ban.tokens})

    def banned(self, sequence: Sequence[int]) -> TokenArray:
        """Return every token that may not come next, each once, in order."""
        return np.array(sorted({token for ban in self.bans for token in ban.banned(sequence)}), np.int64)

    def process(self, sequence: Sequence[int], scores: FloatArray) -> FloatArray:
        """Return the processed `scores` [V]; banned tokens have -inf."""
        processed = scores.copy()
        if self.penalty is not None:
            seen = np.unique(sequence)
            processed[seen] = self.penalty(scores[seen])
        processed[self.banned(sequence)] = -np.inf
        return processed if self.timestamps is None else self.timestamps(sequence, processed)

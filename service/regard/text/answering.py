"""Extractive question answering: from scores of where an answer begins and ends to the best spans.

The rule is that of Transformers' question answering pipeline (version 4): the softmax over a window's
context, and the token that stands for no answer, of either end by itself; their product is a span's score.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TokenSpan:
    """The first and last token of an answer within its window, and its score from 0 to 1."""

    first: int
    last: int
    score: float


@dataclass(frozen=True, slots=True)
class Ends:
    """The probabilities [S] of beginning and ending an answer, 0 for all that is not of the context."""

    starts: Array
    ends: Array
    null_score: float
    """The score of there being no answer; 0 where no token stands for that."""

    @classmethod
    def of(cls, logits: npt.NDArray[np.float32], context: Sequence[int], null: int | None) -> Ends:
        """Read logits [S, 2]: `context` are its tokens' positions, `null` that of the one for no answer."""
        allowed = [*context, *([] if null is None else [null])]
        probabilities = np.zeros(logits.shape)
        chosen = logits[allowed].astype(np.float64)
        exponentials = np.exp(chosen - chosen.max(axis=0))
        probabilities[allowed] = exponentials / exponentials.sum(axis=0)
        null_score = 0.0 if null is None else float(probabilities[null].prod())
        if null is not None:
            probabilities[null] = 0
        return cls(probabilities[:, 0], probabilities[:, 1], null_score)

    def spans(self, max_tokens: int) -> Iterator[TokenSpan]:
        """Yield every span of at most `max_tokens` that has a score, the best first."""
        longest = min(max_tokens, len(self.starts))
        scores = np.zeros((longest, len(self.starts)))
        for more in range(longest):
            scores[more, : len(self.starts) - more] = self.starts[: len(self.starts) - more] * self.ends[more:]
        for index in np.argsort(-scores, axis=None, kind="stable"):
            more, first = divmod(int(index), len(self.starts))
            if not scores[more, first]:
                return
            yield TokenSpan(first, first + more, float(scores[more, first]))

"""The best tokens of a row after its processors, found without touching the whole vocabulary.

The graph gives the best K tokens of every row. Processors change few scores: those of the tokens
that they ban and of those that were there before. So the best of the candidates and of the changed
tokens are the best of all, as long as they are no worse than the last candidate; where they are,
the row's logits are processed as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from regard.engine.request import FloatArray
from regard.engine.search.processors import Processors, TokenArray

MOST_CANDIDATES = 64
"""Where a search needs more, it looks at the logits: longer lists of every row cost more than they save."""


@dataclass(frozen=True, slots=True)
class StepScores:
    """What one step says of k rows.

    `candidate_ids` and `candidate_scores` are [k, K], in descending order of score; `log_sum_exp`
    is [k, 1], and 0 if nobody is told how likely a token is; `logits` is [k, V], absent if nothing asked for it.
    """

    candidate_ids: TokenArray
    candidate_scores: FloatArray
    log_sum_exp: FloatArray
    logits: FloatArray | None = None

    @property
    def best(self) -> list[tuple[int, float]]:
        """The likeliest token of each row, and its log-probability, which is no number where the model gave none."""
        logs = self.candidate_scores[:, 0] - self.log_sum_exp[:, 0]
        return list(zip(self.candidate_ids[:, 0].tolist(), logs.tolist(), strict=True))

    @property
    def log_probabilities(self) -> FloatArray:
        """Those of the candidates, [k, K]."""
        return np.asarray(self.candidate_scores - self.log_sum_exp)

    def of(self, first: int, count: int) -> StepScores:
        """Return the share of the rows from `first` on."""
        rows = slice(first, first + count)
        logits = None if self.logits is None else self.logits[rows]
        return StepScores(self.candidate_ids[rows], self.candidate_scores[rows], self.log_sum_exp[rows], logits)

    def repeated(self, times: int) -> StepScores:
        """Return the scores of so many rows in the place of each, all alike."""
        return StepScores(
            np.repeat(self.candidate_ids, times, axis=0),
            np.repeat(self.candidate_scores, times, axis=0),
            np.repeat(self.log_sum_exp, times, axis=0),
            None if self.logits is None else np.repeat(self.logits, times, axis=0),
        )

    def row(self, index: int) -> RowScores:
        """Return one row's share."""
        logits = None if self.logits is None else self.logits[index]
        return RowScores(self.candidate_ids[index], self.candidate_scores[index], self.log_sum_exp[index, 0], logits)


@dataclass(frozen=True, slots=True)
class RowScores:
    """What one step says of one row: `candidate_ids` and `candidate_scores` [K], `logits` [V]."""

    candidate_ids: TokenArray
    candidate_scores: FloatArray
    log_sum_exp: np.float32
    logits: FloatArray | None

    @property
    def all_logits(self) -> FloatArray:
        """The scores of the whole vocabulary [V]. Raises `ValueError` if the step was not asked for them."""
        if self.logits is None:
            raise ValueError("the step was run without logits")
        return self.logits

    def likeliest(self, count: int) -> list[tuple[int, float]]:
        """Return the `count` likeliest tokens, K at most, and their log-probabilities, the likeliest first."""
        logs = self.candidate_scores[:count] - self.log_sum_exp
        return list(zip(self.candidate_ids[:count].tolist(), logs.tolist(), strict=True))

    def log_probability(self, token_id: int) -> float:
        """Return the natural logarithm of a token's probability, as the model gave it; it takes the logits."""
        return float(self.all_logits[token_id] - self.log_sum_exp)


@dataclass(frozen=True, slots=True)
class Shortlist:
    """Tokens [n] in descending order of their processed scores [n]; none of them is banned."""

    token_ids: TokenArray
    scores: FloatArray


def shortlist(
    row: RowScores,
    sequence: Sequence[int],
    processors: Processors,
    needed: int,
    *,
    normalized: bool,
    ties: bool = False,
) -> Shortlist:
    """Return the `needed` best tokens of a row that has its logits, fewer if so many are banned.

    `normalized` processes log-probabilities, as beam search does, instead of logits. With `ties`, the tokens that are
    as good as the last of the best are among them.
    """
    offset = row.log_sum_exp if normalized else np.float32(0)
    listed = _of_candidates(row, sequence, processors, offset) if processors.timestamps is None else None
    if listed is None or not _is_enough(listed, row.candidate_scores[-1] - offset, needed, ties=ties):
        processed = processors.process(sequence, row.all_logits - offset)
        token_ids = np.flatnonzero(processed >= _threshold(processed, needed))
        token_ids = token_ids[np.isfinite(processed[token_ids])]
        listed = _sorted(token_ids, processed[token_ids])
    if ties and needed < len(listed.scores):
        needed = int(np.count_nonzero(listed.scores >= listed.scores[needed - 1]))
    return Shortlist(listed.token_ids[:needed], listed.scores[:needed])


def _of_candidates(row: RowScores, sequence: Sequence[int], processors: Processors, offset: np.float32) -> Shortlist:
    """Return what is left of a row's candidates, and of what was there before, if that is penalised."""
    ids, scores = row.candidate_ids, row.candidate_scores - offset
    if processors.penalty is not None:
        seen = np.unique(sequence)
        unlisted = ~np.isin(ids, seen)
        ids = np.concatenate([ids[unlisted], seen])
        scores = np.concatenate([scores[unlisted], processors.penalty(row.all_logits[seen] - offset)])
    allowed = ~np.isin(ids, processors.banned(sequence))
    return _sorted(ids[allowed], scores[allowed])


def _is_enough(listed: Shortlist, floor: np.float32, needed: int, *, ties: bool) -> bool:
    """Whether no token that isn't listed, all of which are no better than the `floor`, belongs to the `needed` best."""
    if len(listed.scores) < needed:
        return False
    last = listed.scores[needed - 1]
    return bool(last > floor or (last == floor and not ties))


def _threshold(scores: FloatArray, count: int) -> np.float32:
    """Return the score of the `count`-th best, or the least."""
    at = max(len(scores) - count, 0)
    return np.float32(np.partition(scores, at)[at])


def _sorted(token_ids: TokenArray, scores: FloatArray) -> Shortlist:
    order = np.argsort(-scores, kind="stable")
    return Shortlist(token_ids[order], scores[order])

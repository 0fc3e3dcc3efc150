"""From scores to decisions: which token a row takes next. Pure functions of arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from regard.engine.request import FinishReason, FloatArray
from regard.engine.search.processors import TokenArray
from regard.manifest import GenerationSpec


@dataclass(frozen=True, slots=True)
class Choice:
    """The next token of every row [N], its log-probability [N], and whether it is finite [N]."""

    token_ids: TokenArray
    log_probabilities: FloatArray
    finite: npt.NDArray[np.bool_]


def candidates_needed(spec: GenerationSpec) -> int:
    """Return how many candidates hold at least one token that is not suppressed."""
    return min(1 + len(spec.suppressed_token_ids), spec.vocabulary_size)


def greedy(
    candidate_ids: TokenArray, candidate_scores: FloatArray, log_sum_exp: FloatArray, spec: GenerationSpec
) -> Choice:
    """Choose each row's likeliest token that is not suppressed.

    `candidate_ids` and `candidate_scores` are [N, K], in descending order of score, `log_sum_exp`
    is [N, 1]. The log-probability is the model's own, before any suppression.
    """
    allowed = np.ones(candidate_ids.shape, bool)
    for token_id in spec.suppressed_token_ids:
        allowed &= candidate_ids != token_id
    best = np.arange(len(candidate_ids)), allowed.argmax(axis=1)
    token_ids = candidate_ids[best]
    log_probabilities = candidate_scores[best] - log_sum_exp[:, 0]
    return Choice(token_ids, log_probabilities, np.isfinite(log_probabilities))


def forced_token(position: int, max_new_tokens: int, spec: GenerationSpec) -> int | None:
    """Return the token that the checkpoint forces at a position (from 0), as `generate()` does."""
    if position == 0 and spec.forced_bos_token_id is not None:
        return spec.forced_bos_token_id
    if position == max_new_tokens - 1 and spec.forced_eos_token_id is not None:
        return spec.forced_eos_token_id
    return None


def finish_reason(token_id: int, generated: int, max_new_tokens: int, spec: GenerationSpec) -> FinishReason | None:
    """Return why a row that has just got `token_id` ends, or None if it goes on."""
    if token_id in spec.eos_token_ids:
        return FinishReason.END_OF_SENTENCE
    if generated >= max_new_tokens:
        return FinishReason.LENGTH
    return None

"""From scores to decisions."""

from __future__ import annotations

import numpy as np
import pytest

from regard.engine.request import FinishReason
from regard.engine.search import candidates_needed, finish_reason, forced_token, greedy
from regard.manifest import GenerationSpec
from regard.testing import echo_package

SPEC = echo_package().manifest.generation
assert SPEC is not None
FORCED: GenerationSpec = SPEC.model_copy(update={"forced_bos_token_id": 7, "forced_eos_token_id": 1})


def test_greedy_takes_the_best_token_that_is_not_suppressed() -> None:
    """The suppressed token leads in the first row only; its log-probability is that of the one taken."""
    choice = greedy(np.array([[0, 5], [6, 0]]), np.array([[3.0, 2.0], [3.0, 2.0]], np.float32), np.ones((2, 1)), SPEC)
    assert choice.token_ids.tolist() == [5, 6]
    assert choice.log_probabilities.tolist() == [1.0, 2.0]


def test_rows_that_are_not_finite_are_told_apart() -> None:
    """NaN in one row leaves the other's choice alone."""
    choice = greedy(np.array([[5, 6]] * 2), np.array([[1, 0], [np.nan, 0]], np.float32), np.ones((2, 1)), SPEC)
    assert choice.finite.tolist() == [True, False]


def test_candidates_cover_every_suppressed_token() -> None:
    """One more than the suppressed tokens, but never more than there are."""
    assert candidates_needed(SPEC) == 2
    assert candidates_needed(SPEC.model_copy(update={"vocabulary_size": 1})) == 1


@pytest.mark.parametrize(("position", "token"), [(0, 7), (1, None), (8, None), (9, 1)])
def test_forced_tokens_stand_first_and_last(position: int, token: int | None) -> None:
    """The first token and the tenth of ten are the checkpoint's; a spec without any forces none."""
    assert forced_token(position, 10, FORCED) == token
    assert forced_token(position, 10, SPEC) is None


def test_the_end_of_the_sentence_wins_over_the_length() -> None:
    """A sentence that ends on its last allowed token has ended by itself."""
    assert finish_reason(1, 5, 5, SPEC) is FinishReason.END_OF_SENTENCE
    assert finish_reason(9, 5, 5, SPEC) is FinishReason.LENGTH
    assert finish_reason(9, 4, 5, SPEC) is None

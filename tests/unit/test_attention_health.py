"""The health of attention, against figures worked out by hand and by SciPy's and NLTK's definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from regard.attention.health import coverage, entropy, measure, repetition


def test_entropy_is_0_on_one_position_and_1_over_all() -> None:
    """Rows on one position, on two of four, and evenly over all have 0, a half and 1; one position alone has 0."""
    rows = [[1.0, 0, 0, 0], [0.5, 0, 0.5, 0], [0.25] * 4]

    assert entropy(rows) == pytest.approx([0, 0.5, 1])
    assert entropy([[1.0]]) == pytest.approx([0])
    assert entropy(np.zeros((0, 3))).shape == (0,)


def test_coverage_is_clipped_at_one() -> None:
    """Its logarithms sum to the coverage penalty of Wu et al.: what is looked at twice counts once."""
    weights = np.array([[0.75, 0.25, 0.0], [0.75, 0.0, 0.25]])

    assert coverage(weights) == pytest.approx([1.0, 0.25, 0.25])
    penalty = sum(math.log(min(column, 1.0)) for column in weights.sum(axis=0))
    assert np.log(coverage(weights)).sum() == pytest.approx(penalty)


@pytest.mark.parametrize(
    ("items", "share"),
    [([], 0), ([1], 0), ([1, 2], 0), ([1, 2, 3, 4], 0), ([1, 2, 1, 2], 1 / 3), ([7, 7, 7, 7], 2 / 3)],
)
def test_repetition_is_the_share_of_pairs_that_were_there_before(items: list[int], share: float) -> None:
    """No pair, different ones, and the same again."""
    assert repetition(items) == pytest.approx(share)


def test_special_tokens_are_sinks_on_one_side_and_left_out_on_the_other() -> None:
    """The weight on the source's end is the sinks' share; the output's end counts for nothing."""
    weights = [[0.5, 0.25, 0.25], [0.25, 0.25, 0.5], [0.0, 0.0, 1.0]]

    found = measure(weights, [4, 5, 0], [False, False, True], [False, False, True])

    assert found.sink_share == pytest.approx(0.375)
    assert found.coverage == pytest.approx((0.75 + 0.5) / 2)
    assert found.entropy == pytest.approx(entropy(weights)[:2].mean())
    assert (found.repeated_positions, found.repeated_ngrams) == (0, 0)


def test_a_phrase_that_is_said_twice_looks_twice_at_the_same_place() -> None:
    """Tokens 4 5 4 5, which look at the positions 0 1 0 1, repeat one pair of three on both sides."""
    found = measure(np.eye(2)[[0, 1, 0, 1]], [4, 5, 4, 5], [False, False], [False] * 4)

    assert found.repeated_positions == found.repeated_ngrams == pytest.approx(1 / 3)
    assert found.coverage == 1


def test_nothing_but_an_end_has_no_figures() -> None:
    """An output of its end alone gives zeros, not NaN."""
    found = measure([[0.5, 0.5]], [0], [False, True], [True])

    assert (found.entropy, found.coverage, found.sink_share, found.repeated_ngrams) == (0, 0, 0, 0)

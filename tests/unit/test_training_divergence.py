"""Where outputs part, and how sure the reference was there."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.divergence import Divergence, Movement, Output


def output(token_ids: tuple[int, ...], log_probability: float = -0.5, margins: tuple[float, ...] = ()) -> Output:
    """Return an output whose tokens are all equally likely."""
    return Output(token_ids, np.full(len(token_ids), log_probability), np.array(margins))


def test_the_same_outputs_do_not_diverge() -> None:
    """Equal tokens with equal probabilities are the same to the bit."""
    found = Divergence([output((3, 4, 1))], [output((3, 4, 1))])
    assert (found.parted, found.changed, found.flipped, found.before) == (0, 0, 0, 1)


def test_a_probability_that_moved_changes_bits_and_no_tokens() -> None:
    """Equal tokens whose probabilities differ haven't parted, but have changed, by the difference told."""
    found = Divergence([output((3, 4, 1))], [output((3, 4, 1), -0.75)])
    assert (found.parted, found.changed) == (0, 1)
    assert found.differences == pytest.approx([0.25] * 3)


def test_outputs_are_compared_up_to_where_they_part() -> None:
    """One token of three differs: what comes behind it, in other words, is no more compared."""
    found = Divergence([output((3, 4, 5, 1)), output((6, 1))], [output((3, 7, 5, 1), -0.6), output((6, 1))])
    assert (found.parted, found.flips) == (0.5, 1)
    assert found.flipped == pytest.approx(1 / 4)  # of 3, 4 for 7, 6 and 1
    assert found.before == pytest.approx(3 / 6)
    assert found.differences == pytest.approx([0.1, 0, 0])


def test_an_output_that_ends_sooner_parts_there() -> None:
    """An end where the reference goes on is a flip like any other."""
    found = Divergence([output((3, 4, 1))], [output((3, 1))])
    assert (found.flips, found.flipped) == (1, 0.5)


def test_flips_are_told_by_the_margin_of_the_reference() -> None:
    """A flip counts where the reference's margin at it lies, and tokens that held count beside it."""
    references = [output((3, 4, 1), margins=(0.05, 0.5, 3.0)), output((5, 1), margins=(0.02, 3.0))]
    found = Divergence(references, [output((3, 6, 7, 1)), output((5, 1))])
    assert found.has_margins
    assert found.by_margin([0.1, 1.0]) == ([0, 1, 0], [2, 1, 1])


def test_classes_are_told_apart_from_probabilities() -> None:
    """A probability that moves may leave the likeliest class, or change it."""
    reference = np.array([[0.5, 0.25, 0.25], [0.375, 0.5, 0.125]], np.float32)
    other = np.array([[0.5, 0.25, 0.25], [0.5, 0.375, 0.125]], np.float32)
    found = Movement(reference, other)
    assert (found.parted, found.changed) == (0.5, 0.5)
    assert found.furthest.tolist() == [0, 0.125]

"""Links between words, from what each target word attended to."""

from __future__ import annotations

import numpy as np
import pytest

from regard.links import balance, confidence, diagonal, link
from regard.manifest import AlignmentHead, AlignmentSpec

SINK = np.array([[0.4, 0.1, 0.5], [0.1, 0.3, 0.6], [0.0, 0.1, 0.9]])
"""Three target words that all look at the full stop most, and otherwise at their own word."""


def test_a_sink_loses_its_advantage() -> None:
    """A source word that every target word looks at is linked to the one that has nothing else."""
    assert SINK.argmax(axis=1).tolist() == [2, 2, 2]
    assert balance(SINK).argmax(axis=1).tolist() == [0, 1, 2]


def test_intersection_keeps_what_both_sides_choose() -> None:
    """A link of the intersection is the strongest of its row and of its column, and one of argmax'."""
    weights = np.random.default_rng(5).random((50, 7, 9))

    both, forward = link(weights, "intersection"), link(weights, "argmax")

    for pair, target, source in np.argwhere(both):
        assert weights[pair, target, source] == weights[pair, target].max() == weights[pair, :, source].max()
    assert not (both & ~forward).any()
    assert (forward.sum(axis=2) == 1).all()


def test_growing_adds_neighbours_within_the_union() -> None:
    """Two words of one source word get both links when grown; a far one that both sides have placed stays out."""
    weights = np.array([[0.9, 0.0, 0.1], [0.8, 0.1, 0.1], [0.1, 0.0, 0.7]])

    assert np.argwhere(link(weights, "intersection")).tolist() == [[0, 0], [2, 2]]
    assert np.argwhere(link(weights, "grow_diagonal")).tolist() == [[0, 0], [1, 0], [1, 1], [2, 2]]


def test_growing_lies_between_intersection_and_union() -> None:
    """Whatever the weights, growing keeps the intersection and adds only what one side chose."""
    weights = np.random.default_rng(6).random((50, 8, 6))
    forward, backward = link(weights, "argmax"), link(weights.swapaxes(1, 2), "argmax").swapaxes(1, 2)

    grown = link(weights, "grow_diagonal")

    assert not (link(weights, "intersection") & ~grown).any()
    assert not (grown & ~(forward | backward)).any()


@pytest.mark.parametrize("method", ["argmax", "intersection", "grow_diagonal"])
def test_padding_gets_no_link_and_changes_none(method: str) -> None:
    """A pair among zeros is linked as it is alone."""
    weights = np.random.default_rng(7).random((4, 5))
    padded = np.zeros((6, 9))
    padded[:4, :5] = weights

    links = link(balance(padded), method)  # type: ignore[arg-type]

    assert (links[:4, :5] == link(balance(weights), method)).all()  # type: ignore[arg-type]
    assert links.sum() == links[:4, :5].sum()


def test_the_diagonal_prefers_like_places() -> None:
    """The prior is 1 where the places are the same, symmetric in both lengths, and flat without tension."""
    assert np.allclose(np.diag(diagonal(4, 4, 3.0)), 1)
    assert np.allclose(diagonal(3, 5, 2.0), diagonal(5, 3, 2.0).T)
    assert (diagonal(3, 5, 0.0) == 1).all()
    assert diagonal(4, 4, 3.0)[0].tolist() == sorted(diagonal(4, 4, 3.0)[0], reverse=True)


def test_a_package_says_how_weights_become_links() -> None:
    """An alignment's links carry the share that each has of its target word."""
    head = AlignmentHead(layer=0, head=0, position="output")
    spec = AlignmentSpec(heads=(head,), method="argmax", tension=0.0, pairs=1, silver_aer=0.1)

    links, weights = spec.align(SINK)

    assert np.argwhere(links).tolist() == [[0, 0], [1, 1], [2, 2]]
    assert np.allclose(weights.sum(axis=1), 1)
    assert np.allclose(weights, confidence(balance(SINK)))


def test_no_words_have_no_links() -> None:
    """An output or a source without words is aligned to nothing."""
    head = AlignmentHead(layer=0, head=0, position="output")
    spec = AlignmentSpec(heads=(head,), method="grow_diagonal", tension=2.0, pairs=1, silver_aer=0.1)

    for shape in ((0, 3), (3, 0), (0, 0)):
        links, _ = spec.align(np.zeros(shape))
        assert not links.any()

"""Rollout: what it says of paths through layers, counted one by one."""

from __future__ import annotations

from itertools import product

import numpy as np
import numpy.typing as npt
import pytest

from regard.attention.rollout import cross_rollout, joined, rollout

Array = npt.NDArray[np.float32]


def layer(rng: np.random.Generator, queries: int, keys: int, *, causal: bool = False) -> Array:
    """Return the weights of a layer of three heads; rows sum to 1."""
    raw = rng.random((3, queries, keys)) ** 4 + 1e-3
    if causal:
        raw = np.tril(raw)
    return np.asarray(raw / raw.sum(axis=-1, keepdims=True), np.float32)


@pytest.mark.parametrize("length", [1, 2, 5])
def test_a_rollout_sums_over_paths(length: int) -> None:
    """From a position down to an input: at each layer half stays and half goes along the heads' mean."""
    rng = np.random.default_rng(2)
    layers = [layer(rng, length, length) for _ in range(3)]
    step = [
        [[0.5 * (i == j) + 0.5 * float(one[:, i, j].mean()) for j in range(length)] for i in range(length)]
        for one in layers
    ]

    found = rollout(layers)

    assert len(found) == 3
    for start, end in product(range(length), repeat=2):
        paths = product(range(length), repeat=2)
        expected = sum(step[2][start][a] * step[1][a][b] * step[0][b][end] for a, b in paths)
        assert found[2][start, end] == pytest.approx(expected, abs=1e-6)
    assert all(np.abs(one.sum(axis=-1) - 1).max() < 1e-5 for one in found)


def test_a_position_that_attends_to_nothing_is_itself() -> None:
    """A row of zeros leaves the residual connection alone, and rows still sum to 1."""
    weights = np.zeros((2, 3, 3), np.float32)
    weights[:, 1:] = 1 / 3

    (found,) = rollout([weights])

    assert found[0].tolist() == [1, 0, 0]
    assert np.allclose(found.sum(axis=-1), 1)


def test_a_decoder_is_followed_into_its_encoder() -> None:
    """It is the source's share of a block matrix over source and decoder inputs, where every connection keeps half."""
    rng = np.random.default_rng(5)
    sources, targets = 4, 3
    encoder = rollout([layer(rng, sources, sources) for _ in range(2)])[-1]
    own = [layer(rng, targets, targets, causal=True) for _ in range(2)]
    crossing = [layer(rng, targets, sources) for _ in range(2)]
    made = np.hstack([np.zeros((targets, sources)), np.eye(targets)])
    source = np.hstack([encoder, np.zeros((sources, targets))])

    found = cross_rollout(own, crossing, encoder)

    for depth, (self_weights, cross_weights) in enumerate(zip(own, crossing, strict=True), start=1):
        made = 0.5 * made + 0.5 * self_weights.mean(axis=0) @ made
        made = 0.5 * made + 0.5 * cross_weights.mean(axis=0) @ source
        assert np.allclose(made[:, :sources].sum(axis=-1), 1 - 0.5**depth, atol=1e-6)
        assert np.allclose(found[depth - 1], made[:, :sources] / (1 - 0.5**depth), atol=1e-6)


def test_the_rows_of_a_prompt_and_of_what_follows_are_one_square() -> None:
    """A prompt's last token makes the first output, so its row stands among those of the output."""
    rng = np.random.default_rng(7)
    whole = layer(rng, 5, 5, causal=True)

    assert np.array_equal(joined(whole[:, :3, :3], whole[:, 2:]), whole)
    assert np.array_equal(joined(whole[:, :2, :2], whole[:, 2:]), whole)

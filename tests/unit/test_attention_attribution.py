"""What is pure about attribution: regions and their credit, the parts of inputs, and how faithful an order is."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from regard.attention.axes import Passage, Patches
from regard.attention.faithfulness import faithfulness, mean, order_of, random_orders, regions_of
from regard.attention.occlusion import credit, squares, windows
from regard.attention.parts import parts_of
from regard.attention.saliency import last_layer, rolled_out
from regard.attention.selection import Granularity
from regard.errors import InvalidInputError
from regard.text.segment import Segment
from regard.vision.grid import PatchGrid

GRID = PatchGrid(rows=2, columns=3, image_width=60, image_height=40, left=0, top=0, width=60, height=40)
PASSAGE = Passage(
    "a catfish",
    [
        Segment("[CLS]", 0, 0, True, 2),
        Segment("a", 0, 1, False, 5),
        Segment("cat", 2, 5, False, 6),
        Segment("##fish", 5, 9, False, 7),
        Segment("[SEP]", 0, 0, True, 3),
    ],
)


@pytest.mark.parametrize(
    ("count", "size", "stride", "expected"),
    [
        (4, 1, 1, [{0}, {1}, {2}, {3}]),
        (5, 2, 2, [{0, 1}, {2, 3}, {3, 4}]),
        (5, 3, 3, [{0, 1, 2}, {2, 3, 4}]),
        (3, 9, 1, [{0, 1, 2}]),
        (1, 1, 1, [{0}]),
    ],
)
def test_windows_reach_from_the_first_part_to_the_last(
    count: int, size: int, stride: int, expected: list[set[int]]
) -> None:
    """The last window ends where the parts do, however far the stride would go."""
    assert windows(count, size, stride) == expected


def test_squares_cover_a_grid() -> None:
    """Squares stand side by side in both directions, in row-major order of the patches."""
    assert squares(3, 3, 2, 1) == [{0, 1, 3, 4}, {1, 2, 4, 5}, {3, 4, 6, 7}, {4, 5, 7, 8}]
    assert squares(2, 3, 5, 1) == [set(range(6))]


def test_credit_is_the_mean_fall_of_the_regions_of_a_part() -> None:
    """Each part has the mean over the regions that cover it, for every outcome, by a loop of our own."""
    random = np.random.default_rng(3)
    regions = windows(7, 3, 2)
    falls = random.normal(size=(len(regions), 4))
    found = credit(regions, falls, 7)
    for part in range(7):
        mine = [falls[index] for index, region in enumerate(regions) if part in region]
        np.testing.assert_allclose(found[:, part], np.mean(mine, axis=0))


@pytest.mark.parametrize("count", [1, 2, 3, 19, 20, 21, 64, 197])
def test_faithfulness_equals_a_straightforward_computation(count: int) -> None:
    """Curves of exact shares below the trapezoids, and ERASER's bins, of a score that is no sum of parts."""
    random = np.random.default_rng(count)
    worth = random.normal(size=count)

    def score(removed: frozenset[int]) -> float:
        kept = [worth[part] for part in range(count) if part not in removed]
        return float(1 / (1 + np.exp(-sum(kept) - len(kept) ** 0.5)))

    order = order_of(worth)
    found = faithfulness(order, score)
    points = sorted({round(Fraction(count * step, min(count, 20))) for step in range(min(count, 20) + 1)})
    deleted, inserted = ([score(frozenset(part)) for part in parts] for parts in _both(order, points))
    shares = [float(Fraction(point, count)) for point in points]
    for curve, area in ((deleted, found.deletion_auc), (inserted, found.insertion_auc)):
        steps = zip(shares, shares[1:], curve, curve[1:], strict=False)
        assert area == pytest.approx(sum((right - left) * (low + high) / 2 for left, right, low, high in steps))
    bins = [next(k for k in range(count + 1) if Fraction(k, count) >= share) for share in _bins()]
    without, alone = ([score(frozenset(part)) for part in parts] for parts in _both(order, bins))
    whole = score(frozenset())
    assert found.comprehensiveness == pytest.approx(np.mean([whole - one for one in without]))
    assert found.sufficiency == pytest.approx(np.mean([whole - one for one in alone]))


def _both(order: list[int], sizes: list[int]) -> tuple[list[list[int]], list[list[int]]]:
    return [order[:size] for size in sizes], [order[size:] for size in sizes]


def _bins() -> list[Fraction]:
    return [Fraction(1, 100), Fraction(1, 20), Fraction(1, 10), Fraction(1, 5), Fraction(1, 2)]


def test_only_the_announced_regions_are_scored() -> None:
    """Measuring an order needs no score beyond those of its regions."""
    for count in (1, 5, 20, 33):
        order = random_orders(count)[0]
        scored: set[frozenset[int]] = set()
        faithfulness(order, lambda removed, scored=scored: scored.add(removed) or 0.5)
        assert scored == regions_of(order)


def test_the_best_order_is_more_faithful_than_chance() -> None:
    """Of a score that is the sum of its parts, their own order beats the mean of random ones in every measure."""
    worth = np.array([0.5, 0.25, 0.15, 0.07, 0.03, 0.0, 0.0, 0.0])

    def score(removed: frozenset[int]) -> float:
        return float(sum(worth[part] for part in range(8) if part not in removed))

    own, chance = faithfulness(order_of(worth), score), mean([faithfulness(one, score) for one in random_orders(8)])
    assert own.deletion_auc < chance.deletion_auc and own.insertion_auc > chance.insertion_auc
    assert own.comprehensiveness > chance.comprehensiveness and own.sufficiency < chance.sufficiency


def test_random_orders_are_orders_and_the_same_every_time() -> None:
    """Each holds every part once, and a second call gives what the first did."""
    assert all(sorted(order) == list(range(9)) for order in random_orders(9))
    assert random_orders(9) == random_orders(9)


def test_words_are_parts_of_several_positions() -> None:
    """A word holds its tokens' positions, and special tokens are no parts."""
    parts = parts_of(PASSAGE, Granularity.WORD, "text")
    assert [(part.text, positions) for part, positions in zip(parts.segments, parts.positions, strict=True)] == [
        ("a", (1,)),
        ("catfish", (2, 3)),
    ]
    assert parts.leads and parts_of(PASSAGE, Granularity.TOKEN, "text").count == 3


def test_patches_are_parts_whatever_the_granularity() -> None:
    """An image has a part for each patch, behind the positions that lead it."""
    for granularity in Granularity:
        parts = parts_of(Patches(("[CLS]",), GRID), granularity, "image")
        assert parts.positions == tuple((position,) for position in range(1, 7))
        assert (parts.leads, parts.grid) == (True, GRID)


def test_an_input_of_special_tokens_alone_has_no_parts() -> None:
    """It is refused by the name of its field."""
    with pytest.raises(InvalidInputError, match=r"inputs\[0\] has no word"):
        parts_of(Passage("", [Segment("[CLS]", 0, 0, True, 2)]), Granularity.WORD, "inputs[0]")


def test_attention_is_read_at_the_position_that_leads() -> None:
    """The last layer's mean of heads at the first row, summed over a word's tokens; without [CLS], the mean row."""
    random = np.random.default_rng(5)
    layers = [random.dirichlet(np.ones(5), size=(2, 5)).astype(np.float32) for _ in range(3)]
    words = parts_of(PASSAGE, Granularity.WORD, "text")
    row = layers[-1].mean(axis=0)[0]
    np.testing.assert_allclose(last_layer(layers, words), [row[1], row[2] + row[3]], rtol=1e-6)
    bare = parts_of(Passage(PASSAGE.text, PASSAGE.segments[1:4]), Granularity.WORD, "text")
    inner = [layer[:, :3, :3] for layer in layers]
    row = inner[-1].mean(axis=(0, 1))
    np.testing.assert_allclose(last_layer(inner, bare), [row[0], row[1] + row[2]], rtol=1e-6)


def test_rollout_of_one_layer_orders_parts_as_that_layer_does() -> None:
    """Half of the identity moves no weight between the parts of another position."""
    random = np.random.default_rng(6)
    layers = [random.dirichlet(np.ones(5), size=(2, 5)).astype(np.float32)]
    parts = parts_of(PASSAGE, Granularity.TOKEN, "text")
    np.testing.assert_allclose(rolled_out(layers, parts), last_layer(layers, parts) / 2, rtol=1e-6)

"""How faithful an order of an input's parts is to a model: what happens as they are taken away, or put back, in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from regard.attention.occlusion import Region

MOST_STEPS = 20
"""The steps of a curve of more parts."""
PERCENTS = (1, 5, 10, 20, 50)
"""ERASER's bins of the first parts."""
RANDOM_ORDERS = 3

Order = Sequence[int]
Score = Callable[[Region], float]
"""The score of the input without some of its parts."""


@dataclass(frozen=True, slots=True)
class Faithfulness:
    """Four measures of one order, in units of the score.

    `deletion_auc` and `insertion_auc` are the areas below the score while the parts are taken from the input, and
    put into an input without any, in this order, over the share of them from 0 to 1 (Petsiuk et al. 2018, RISE:
    randomized input sampling for explanation of black-box models, section 4.3). `comprehensiveness` is the fall
    of the score without the first parts, and `sufficiency` that with none but them: the means over the first `PERCENTS`
    (DeYoung et al. 2020, ERASER: a benchmark to evaluate rationalized NLP models, section 4.2, aggregated as
    there for weights). An order is the more faithful the lower the first and the last, and the higher the others.
    """

    deletion_auc: float
    insertion_auc: float
    comprehensiveness: float
    sufficiency: float


def order_of(weights: npt.NDArray[np.float64]) -> list[int]:
    """Return the parts by their weights [parts], the greatest first; of equals, the first first."""
    return [int(part) for part in np.argsort(-weights, kind="stable")]


def random_orders(count: int) -> list[list[int]]:
    """Return orders of `count` parts drawn at random, the same ones every time."""
    random = np.random.default_rng(0)
    return [[int(part) for part in random.permutation(count)] for _ in range(RANDOM_ORDERS)]


def regions_of(order: Order) -> set[Region]:
    """Return every set of parts that must be taken away to measure an order; nothing and everything among them."""
    sizes = {*_steps(len(order)), *_bins(len(order))}
    return {frozenset(order[:size]) for size in sizes} | {frozenset(order[size:]) for size in sizes}


def faithfulness(order: Order, score: Score) -> Faithfulness:
    """Measure an order by the scores without each of its `regions_of`."""
    steps, bins, whole = _steps(len(order)), _bins(len(order)), score(frozenset())
    shares = np.array(steps) / len(order)
    deletion = [score(frozenset(order[:size])) for size in steps]
    insertion = [score(frozenset(order[size:])) for size in steps]
    return Faithfulness(
        deletion_auc=float(np.trapezoid(deletion, shares)),
        insertion_auc=float(np.trapezoid(insertion, shares)),
        comprehensiveness=float(np.mean([whole - score(frozenset(order[:size])) for size in bins])),
        sufficiency=float(np.mean([whole - score(frozenset(order[size:])) for size in bins])),
    )


def mean(measured: Sequence[Faithfulness]) -> Faithfulness:
    """Return the mean of each measure."""
    means = {one.name: float(np.mean([getattr(each, one.name) for each in measured])) for one in fields(Faithfulness)}
    return Faithfulness(**means)


def _steps(count: int) -> list[int]:
    """Return how many of `count` parts are gone at each point of a curve, from none to all."""
    return sorted({round(step) for step in np.linspace(0, count, min(count, MOST_STEPS) + 1).tolist()})


def _bins(count: int) -> list[int]:
    return [-(-percent * count // 100) for percent in PERCENTS]

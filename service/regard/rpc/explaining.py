"""What the parts of one input are worth to its answer, by every method that was asked for, and how faithful each is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from regard.attention.axes import Axis
from regard.attention.faithfulness import (
    RANDOM_ORDERS,
    Faithfulness,
    Order,
    faithfulness,
    mean,
    order_of,
    random_orders,
    regions_of,
)
from regard.attention.occlusion import Region, credit, squares, windows
from regard.attention.parts import Erasure, Manner, Parts
from regard.attention.selection import Granularity
from regard.engine.source import Source
from regard.errors import InvalidInputError
from regard.manifest import ImageSpec
from regard.rpc.erasing import Eraser
from regard.rpc.resources import Resources
from regard.rpc.trials import Score, Trials

Floats = npt.NDArray[np.float64]
TEXT_WINDOW, SQUARES_A_SIDE = 2, 5
"""By default, so many words are covered at once; or a square of patches, so many of which are a side of the image."""
RUNS_AHEAD = 2
"""The batches of one request that are filled at once: one that runs, and one that waits to."""


class Method(StrEnum):
    """How it is told what a part is worth."""

    LEAVE_ONE_OUT = "leave_one_out"
    OCCLUSION = "occlusion"
    LAST_LAYER = "last_layer"
    ROLLOUT = "rollout"
    ALIGNMENT_HEADS = "alignment_heads"


@dataclass(frozen=True, slots=True)
class Wish:
    """What a request asks to be told of each input; no methods are all that there are."""

    methods: tuple[Method, ...]
    granularity: Granularity
    window: int
    stride: int
    faithfulness: bool
    overlay: bool

    def wants(self, method: Method) -> bool:
        """Whether a method was asked for, by its name or as one of all."""
        return not self.methods or method in self.methods


@dataclass(frozen=True, slots=True)
class Subject:
    """One input, and the answer to it that is explained.

    `whole` are the scores of the answer's outcomes [outcomes] and `score` finds them for another input; `total`
    puts those of one input together. `attended` is what the model's own attention tells, [outcomes, parts]. The
    outcomes are the `targets`, the words of an output; or the only one is a class.
    """

    parts: Parts
    eraser: Eraser
    whole: Floats
    score: Score
    total: Callable[[Floats], float]
    attended: Mapping[Method, Floats]
    targets: Axis | None = None

    @property
    def manner(self) -> Manner:
        """How parts are taken away to measure faithfulness."""
        return Manner.LEFT_OUT if self.eraser.closes_up else Manner.COVERED

    @property
    def methods(self) -> list[Method]:
        """The methods that there are."""
        erasing = {Method.OCCLUSION} | ({Method.LEAVE_ONE_OUT} if self.eraser.closes_up else set())
        return [method for method in Method if method in erasing or method in self.attended]


@dataclass(frozen=True, slots=True)
class Explanation:
    """What each method says the parts are worth, [outcomes, parts], and, if it was asked for, how faithful it is."""

    weights: Mapping[Method, Floats]
    faithfulness: Mapping[Method, Faithfulness]
    random: Faithfulness | None
    runs: int


@dataclass(frozen=True, slots=True)
class Explainer:
    """Explains the inputs of one request; together they have so many `places` for runs at once.

    `max_attention_bytes` is the most that is read of the model's attention for one input.
    """

    wish: Wish
    resources: Resources
    max_attention_bytes: int
    places: asyncio.Semaphore

    async def explain(self, subject: Subject, field: str) -> Explanation:
        """Return what the parts of one input are worth. Raises `InvalidInputError` if it takes too many runs."""
        offload, methods = self.resources.offload, self._methods(subject)
        regions = await offload(self._regions, methods, subject.parts, field)

        async def erase(erasure: Erasure) -> Source:
            return await offload(subject.eraser.without, erasure)

        trials = Trials(erase, subject.score, self.places, subject.whole)
        await trials.run(_erasure(method, region) for method in methods for region in regions[method])
        weights = await offload(_weights, trials, regions, subject)
        if not self.wish.faithfulness:
            return Explanation(weights, {}, None, trials.runs)
        orders = {method: order_of(one.sum(axis=0)) for method, one in weights.items()}
        drawn = random_orders(subject.parts.count)
        await trials.run(await offload(_erasures, [*orders.values(), *drawn], subject.manner))
        measured = {method: await offload(_measured, trials, order, subject) for method, order in orders.items()}
        chance = mean([await offload(_measured, trials, order, subject) for order in drawn])
        return Explanation(weights, measured, chance, trials.runs)

    def _methods(self, subject: Subject) -> Sequence[Method]:
        there = subject.methods
        for method in self.wish.methods:
            if method not in there:
                raise InvalidInputError(
                    f"attribution.methods: {method} can't be had of this input to this model; "
                    f"there are {', '.join(there)}",
                    field="attribution.methods",
                )
        return self.wish.methods or there

    def _regions(self, methods: Sequence[Method], parts: Parts, field: str) -> dict[Method, list[Region]]:
        """Return what each method takes away, one after the other. Raises `InvalidInputError` for too much."""
        regions = {method: self._regions_of(method, parts) for method in methods}
        self._check_runs(parts, sum(map(len, regions.values())), len(methods), field)
        return regions

    def _regions_of(self, method: Method, parts: Parts) -> list[Region]:
        """Return what a method takes away, one after the other; nothing for one that doesn't."""
        if method is Method.LEAVE_ONE_OUT:
            return windows(parts.count, 1, 1)
        if method is not Method.OCCLUSION:
            return []
        size, stride = self.wish.window, self.wish.stride
        if parts.grid is None:
            return windows(parts.count, size, stride)
        return squares(parts.grid.rows, parts.grid.columns, size, stride)

    def _check_runs(self, parts: Parts, taken: int, methods: int, field: str) -> None:
        runs, most = 1 + taken, self.resources.settings.max_attribution_runs
        if self.wish.faithfulness:
            one = len(regions_of(range(parts.count))) - 2
            runs += 1 + one * (methods + RANDOM_ORDERS)
        if runs > most:
            raise InvalidInputError(
                f"{field}: its {parts.count} parts take {runs} runs of the model; the most for one input is "
                f"{most}; ask for fewer methods, for words, for a greater occlusion_stride or without "
                "faithfulness, or shorten the input",
                field=field,
            )


def default_window(image: ImageSpec | None) -> int:
    """Return how many parts of a text occlusion covers at once, or how many patches of a side of `image`."""
    return max(round(min(image.patch_rows, image.patch_columns) / SQUARES_A_SIDE), 1) if image else TEXT_WINDOW


def explainer_of(wish: Wish, resources: Resources, inputs: int) -> Explainer:
    """Return what explains a request's inputs: with places enough to fill every instance, and never the queue."""
    settings, engine = resources.settings, resources.settings.engine
    places = asyncio.Semaphore(min(RUNS_AHEAD * engine.instances * engine.max_rows, engine.max_queue))
    return Explainer(wish, resources, settings.max_attention_bytes // inputs, places)


def _erasure(method: Method, region: Region) -> Erasure:
    return Erasure(region, Manner.LEFT_OUT if method is Method.LEAVE_ONE_OUT else Manner.COVERED)


def _erasures(orders: Sequence[Order], manner: Manner) -> set[Erasure]:
    """Return all that must be taken away to measure some orders."""
    return {Erasure(region, manner) for order in orders for region in regions_of(order)}


def _weights(trials: Trials, regions: Mapping[Method, Sequence[Region]], subject: Subject) -> dict[Method, Floats]:
    """Return what each method says: of what it took away, or of what it was told."""
    return {
        method: _credit(trials, method, taken, subject) if taken else subject.attended[method]
        for method, taken in regions.items()
    }


def _credit(trials: Trials, method: Method, regions: Sequence[Region], subject: Subject) -> Floats:
    falls = np.array([subject.whole - trials.without(_erasure(method, region)) for region in regions])
    return credit(regions, falls, subject.parts.count)


def _measured(trials: Trials, order: Order, subject: Subject) -> Faithfulness:
    return faithfulness(order, lambda region: subject.total(trials.without(Erasure(region, subject.manner))))

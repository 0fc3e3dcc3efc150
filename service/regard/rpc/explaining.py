"""What the parts of one input, and the model's heads, are worth to its answer by every method; how faithful each is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

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
from regard.attention.knock_out import Heads
from regard.attention.occlusion import Region, credit, squares, windows
from regard.attention.parts import Erasure, Manner, Parts
from regard.attention.selection import Granularity
from regard.catalog import Model
from regard.engine.interventions import NO_INTERVENTIONS, Interventions, LayerIntervention
from regard.engine.source import Source
from regard.errors import InvalidInputError
from regard.manifest import ImageSpec
from regard.rpc.erasing import Eraser
from regard.rpc.resources import Resources
from regard.rpc.trials import Trials

Floats = npt.NDArray[np.float64]
Score = Callable[[Source, Interventions], Awaitable[Floats]]
"""Runs a model that is changed so: what each outcome of an answer scores, [outcomes]."""
TEXT_WINDOW, SQUARES_A_SIDE = 2, 5
"""By default, so many words are covered at once; or a square of patches, so many of which are a side of the image."""


class Method(StrEnum):
    """How it is told what a part is worth, or a head."""

    LEAVE_ONE_OUT = "leave_one_out"
    OCCLUSION = "occlusion"
    LAST_LAYER = "last_layer"
    ROLLOUT = "rollout"
    ALIGNMENT_HEADS = "alignment_heads"
    HEAD_KNOCK_OUT = "head_knock_out"
    VALUE_NORM = "value_norm"


_MANNERS = {
    Method.LEAVE_ONE_OUT: Manner.LEFT_OUT,
    Method.OCCLUSION: Manner.COVERED,
    Method.HEAD_KNOCK_OUT: Manner.KNOCKED_OUT,
}


@dataclass(frozen=True, slots=True)
class Wish:
    """What a request asks to be told of each input; no methods are all that there are."""

    methods: tuple[Method, ...]
    granularity: Granularity
    window: int
    stride: int
    faithfulness: bool
    overlay: bool
    heads: Heads | None = None
    """The heads to knock out, if that is among the methods."""

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
        """The methods that tell of parts."""
        erasing = {Method.OCCLUSION} | ({Method.LEAVE_ONE_OUT} if self.eraser.closes_up else set())
        return [method for method in Method if method in erasing or method in self.attended]


@dataclass(frozen=True, slots=True)
class Account:
    """What each method says the parts, or the heads, are worth, [outcomes, parts], and how faithful each order is.

    That, and the faithfulness of random orders, is there if it was asked for.
    """

    weights: Mapping[Method, Floats]
    faithfulness: Mapping[Method, Faithfulness]
    random: Faithfulness | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """What the parts of an input are worth, and, if that was asked for, the model's heads."""

    parts: Account
    heads: Account | None
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
        """Return what the parts of one input, and heads, are worth. Raises `InvalidInputError` for too many runs."""
        offload, methods = self.resources.offload, self._methods(subject)
        regions = await offload(self._regions, methods, subject.parts, field)
        trials = Trials(partial(self._score, subject), self.places, subject.whole)
        await trials.run(_erasure(method, region) for method in methods for region in regions[method])
        weights = await offload(_weights, trials, regions, subject)
        of_heads: dict[Method, Floats] = {
            method: one for method, one in weights.items() if method is Method.HEAD_KNOCK_OUT
        }
        of_parts = {method: one for method, one in weights.items() if method not in of_heads}
        parts = await self._account(of_parts, trials, subject, subject.manner)
        heads = await self._account(of_heads, trials, subject, Manner.KNOCKED_OUT) if of_heads else None
        return Explanation(parts, heads, trials.runs)

    async def _score(self, subject: Subject, erasure: Erasure) -> Floats:
        """Run the model on an input without some of its parts, or on the whole input without some of its heads."""
        if erasure.manner is not Manner.KNOCKED_OUT:
            return await subject.score(await self.resources.offload(subject.eraser.without, erasure), NO_INTERVENTIONS)
        assert self.wish.heads is not None
        changes = self.wish.heads.without(erasure.parts)
        interventions = {name: LayerIntervention(one.gates, one.biases) for name, one in changes.items()}
        return await subject.score(subject.eraser.source, interventions)

    async def _account(
        self, weights: Mapping[Method, Floats], trials: Trials, subject: Subject, manner: Manner
    ) -> Account:
        """Add to what methods say, if that was asked for, how faithful it is."""
        if not self.wish.faithfulness or not weights:
            return Account(weights, {}, None)
        offload, count = self.resources.offload, next(iter(weights.values())).shape[1]
        orders, drawn = {method: order_of(one.sum(axis=0)) for method, one in weights.items()}, random_orders(count)
        await trials.run(await offload(_erasures, [*orders.values(), *drawn], manner))

        async def measure(order: Order) -> Faithfulness:
            return await offload(_measured, trials, order, subject, manner)

        measured = {method: await measure(order) for method, order in orders.items()}
        return Account(weights, measured, mean([await measure(order) for order in drawn]))

    def _methods(self, subject: Subject) -> Sequence[Method]:
        there = [*subject.methods, *([Method.HEAD_KNOCK_OUT] if self.wish.heads else [])]
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
        self._check_runs(parts, regions, field)
        return regions

    def _regions_of(self, method: Method, parts: Parts) -> list[Region]:
        """Return what a method takes away, one after the other; nothing for one that doesn't."""
        if method is Method.LEAVE_ONE_OUT:
            return windows(parts.count, 1, 1)
        if method is Method.HEAD_KNOCK_OUT:
            assert self.wish.heads is not None
            return windows(self.wish.heads.count, 1, 1)
        if method is not Method.OCCLUSION:
            return []
        size, stride = self.wish.window, self.wish.stride
        if parts.grid is None:
            return windows(parts.count, size, stride)
        return squares(parts.grid.rows, parts.grid.columns, size, stride)

    def _check_runs(self, parts: Parts, regions: Mapping[Method, Sequence[Region]], field: str) -> None:
        heads, most = self.wish.heads, self.resources.settings.max_attribution_runs
        runs = 1 + sum(map(len, regions.values()))
        if self.wish.faithfulness:
            runs += _runs_of_orders(parts.count, sum(method is not Method.HEAD_KNOCK_OUT for method in regions))
            runs += _runs_of_orders(heads.count, 1) if heads else 0
        if runs > most:
            and_heads, of_layers = (f" and {heads.count} heads", ", for fewer layers of heads") if heads else ("", "")
            raise InvalidInputError(
                f"{field}: its {parts.count} parts{and_heads} take {runs} runs of the model; the most for one input is "
                f"{most}; ask for fewer methods, for words, for a greater occlusion_stride{of_layers} or without "
                "faithfulness, or shorten the input",
                field=field,
            )


def default_window(image: ImageSpec | None) -> int:
    """Return how many parts of a text occlusion covers at once, or how many patches of a side of `image`."""
    return max(round(min(image.patch_rows, image.patch_columns) / SQUARES_A_SIDE), 1) if image else TEXT_WINDOW


def explainer_of(wish: Wish, resources: Resources, model: Model, inputs: int) -> Explainer:
    """Return what explains a request's inputs."""
    return Explainer(wish, resources, resources.settings.max_attention_bytes // inputs, resources.places(model))


def _erasure(method: Method, region: Region) -> Erasure:
    return Erasure(region, _MANNERS[method])


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
    return credit(regions, falls, len(frozenset().union(*regions)))


def _measured(trials: Trials, order: Order, subject: Subject, manner: Manner) -> Faithfulness:
    return faithfulness(order, lambda region: subject.total(trials.without(Erasure(region, manner))))


def _runs_of_orders(count: int, methods: int) -> int:
    """Return how many runs it takes at most to measure how `methods` order so many parts."""
    one = len(regions_of(range(count))) - 2
    return 1 + one * (methods + RANDOM_ORDERS) if methods else 0

"""What each part of an input is worth to an answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from regard.answers.attention import PatchGrid, Segment
from regard.answers.generation import GeneratedToken
from regard.answers.provenance import ModelVersion
from regard.answers.reading import ClassProbability


@dataclass(frozen=True, slots=True)
class Faithfulness:
    """How well an order of an input's parts agrees with what the model does without them, in units of the score.

    Low `deletion_auc` and `sufficiency` are faithful, and high `insertion_auc` and `comprehensiveness`.
    """

    deletion_auc: float
    insertion_auc: float
    comprehensiveness: float
    sufficiency: float


@dataclass(frozen=True, slots=True, eq=False)
class Attribution:
    """What one method says that each part of an input is worth, float64 [parts], and how faithful that is.

    `overlay` is a PNG file of the image under these weights, if that was asked for; `target_weights` are what a part
    is worth to each word of an output, [targets, parts], whose sums are the weights.
    """

    method: str
    weights: npt.NDArray[np.float64]
    faithfulness: Faithfulness | None
    overlay: bytes | None = None
    target_weights: npt.NDArray[np.float64] | None = None


class Head(NamedTuple):
    """A head of a model, of a layer of its stack; both are counted from 0."""

    stack: str
    kind: str
    layer: int
    head: int


@dataclass(frozen=True, slots=True, eq=False)
class HeadWeights:
    """What each head of one kind of attention in one stack is worth: the fall of the score without it.

    `weights` are float64 [layers, heads]; `target_weights` tell it of each word of an output, [targets, layers, heads],
    whose sums are the weights.
    """

    kind: str
    stack: str
    layers: tuple[int, ...]
    weights: npt.NDArray[np.float64]
    target_weights: npt.NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True)
class HeadAttribution:
    """What each head is worth to an answer, by knocking it out, and how faithful the order of all of them is.

    `random` is the faithfulness of orders drawn at random.
    """

    maps: tuple[HeadWeights, ...]
    faithfulness: Faithfulness | None
    random: Faithfulness | None

    def __getitem__(self, place: tuple[str, str]) -> HeadWeights:
        """Return what the heads of a stack and kind, as of `("decoder", "cross")`, are worth, or raise `KeyError`."""
        for one in self.maps:
            if (one.stack, one.kind) == place:
                return one
        there = ", ".join(f"{one.stack} {one.kind}" for one in self.maps)
        raise KeyError(f"no heads of {' '.join(place)} were knocked out; there are {there}")

    def ranked(self) -> list[tuple[Head, float]]:
        """Return all heads with what they are worth, the most first."""
        every = [
            (Head(one.stack, one.kind, layer, head), float(weight))
            for one in self.maps
            for layer, row in zip(one.layers, one.weights, strict=True)
            for head, weight in enumerate(row)
        ]
        return sorted(every, key=lambda one: -one[1])


@dataclass(frozen=True, slots=True)
class Attributions:
    """What several methods say of one input: of its words or tokens, or its patches, which a `grid` places.

    `random` is the faithfulness of orders drawn at random, which a method must surpass to tell anything. `cover` is
    what covers a word under occlusion; `runs` is how often the model was run. `heads` is there if head knock-out was
    asked for.
    """

    parts: tuple[Segment, ...]
    grid: PatchGrid | None
    methods: tuple[Attribution, ...]
    random: Faithfulness | None
    cover: str
    runs: int
    package_sha256: str
    precision: str
    heads: HeadAttribution | None = None

    def __getitem__(self, method: str) -> Attribution:
        """Return what a method says; raises `KeyError` for one that was not asked for."""
        for one in self.methods:
            if one.method == method:
                return one
        raise KeyError(f"{method} was not asked for; there are {', '.join(one.method for one in self.methods)}")

    def ranked(self, method: str) -> list[tuple[Segment, float]]:
        """Return the parts with what a method says that they are worth, the most first."""
        weights = self[method].weights
        return [(self.parts[place], float(weights[place])) for place in np.argsort(-weights, kind="stable")]


@dataclass(frozen=True, slots=True)
class ClassAttribution:
    """Which parts of one input made a class likely; the score that they are weighed by is its probability."""

    explained: ClassProbability
    likeliest: ClassProbability
    attributions: Attributions
    model: ModelVersion


@dataclass(frozen=True, slots=True)
class OutputAttribution:
    """Which parts of one input made each word of an output, the `targets`, likely.

    The score that they are weighed by is the natural logarithm of a word's probability; faithfulness is in units
    of the geometric mean of the probabilities of all tokens.
    """

    text: str
    tokens: tuple[GeneratedToken, ...]
    log_probability: float
    targets: tuple[Segment, ...]
    attributions: Attributions
    model: ModelVersion

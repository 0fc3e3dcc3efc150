"""What requests change in a model's attention, and how a batch of them is fed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from regard.manifest import Manifest, TapSpec

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class LayerIntervention:
    """What a request changes in one layer.

    `gates` [H] multiply what each head gives: 1, or 0 for a head that is knocked out. `biases` has for
    each head what is added to its scores, [S, S] or, across, [1, S]: minus infinity is a weight of 0. None adds
    nothing. No query may be left without a key.
    """

    gates: FloatArray
    biases: Sequence[FloatArray | None]


Interventions = Mapping[str, LayerIntervention]
"""By the names of the taps of the layers that are changed."""
NO_INTERVENTIONS: Interventions = MappingProxyType({})


def knocked_out(taps: Iterable[TapSpec], heads: Sequence[int] = ()) -> Interventions:
    """Return interventions that take `heads` of each tap's layer out of the model; all of them, if none are given."""
    found: dict[str, LayerIntervention] = {}
    for tap in taps:
        gates = np.ones(tap.heads, np.float32)
        gates[list(heads) or slice(None)] = 0
        found[tap.name] = LayerIntervention(gates, [None] * tap.heads)
    return found


def concerns(manifest: Manifest, graph: str, interventions: Interventions) -> bool:
    """Tell whether any of a request's interventions are in the layers of `graph`."""
    return bool(interventions) and any(tap.graph == graph and tap.name in interventions for tap in manifest.taps)


def pack_interventions(
    manifest: Manifest, graph: str, requests: Sequence[Interventions], keys: int, hypotheses: int = 1
) -> dict[str, Array]:
    """Return what `graph` is fed for the interventions of a batch, as `regard.manifest` has it.

    The batch's sources are padded to `keys` positions, and each request has so many rows as `hypotheses`. A
    bias that several heads of a request share is fed once.
    """
    taps = [tap for tap in manifest.taps if tap.graph == graph]
    feeds: dict[str, Array] = {}
    for kind in dict.fromkeys(tap.kind for tap in taps):
        own = [tap for tap in taps if tap.kind == kind]
        shape = (len(own), len(requests), own[0].heads)
        gates, index = np.ones(shape, np.float32), np.zeros(shape, np.int64)
        biases = _Biases(1 if own[0].graph == "step" else keys, keys)
        for layer, tap in enumerate(own):
            for row, interventions in enumerate(requests):
                change = interventions.get(tap.name)
                if change is not None:
                    gates[layer, row] = change.gates
                    index[layer, row] = [biases.place(bias) for bias in change.biases]
        feeds[f"{kind}_head_gate"] = np.repeat(gates, hypotheses, axis=1)
        feeds[f"{kind}_bias"] = biases.stacked()
        feeds[f"{kind}_bias_index"] = np.repeat(index, hypotheses, axis=1)
    return feeds


class _Biases:
    """The different biases of a batch, each padded with zeros to [Q, K]; the first adds nothing."""

    def __init__(self, queries: int, keys: int) -> None:
        self._shape = (queries, keys)
        self._places: dict[int, int] = {}
        self._given: list[FloatArray] = []

    def place(self, bias: FloatArray | None) -> int:
        """Return the place of a bias, which is new if this very array wasn't there before."""
        if bias is None:
            return 0
        if id(bias) not in self._places:
            self._given.append(bias)
            self._places[id(bias)] = len(self._given)
        return self._places[id(bias)]

    def stacked(self) -> FloatArray:
        """Return all of them, [B, Q, K]."""
        stacked = np.zeros((1 + len(self._given), *self._shape), np.float32)
        for padded, bias in zip(stacked[1:], self._given, strict=True):
            padded[: bias.shape[0], : bias.shape[1]] = bias
        return stacked

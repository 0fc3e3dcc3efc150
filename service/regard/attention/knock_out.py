"""The heads of a model that can be knocked out one by one, to tell what each is worth to an answer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from regard.attention.interventions import InterventionChoice, KnockOut, LayerChange, intervene
from regard.attention.occlusion import Region
from regard.attention.selection import AttentionChoice, AttentionKind
from regard.manifest import Manifest, TapSpec

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Heads:
    """The heads of some layers, numbered from 0 through all of these, a layer's one after the other.

    (Michel, Levy & Neubig 2019, Are sixteen heads really better than one?, section 3.2, where a head's importance is
    what the model loses when it alone is masked. Here that is told of one answer, not of a test set.)
    """

    taps: tuple[TapSpec, ...]

    @property
    def count(self) -> int:
        """The number of heads."""
        return sum(tap.heads for tap in self.taps)

    def without(self, region: Region) -> dict[str, LayerChange]:
        """Return what knocks the heads of `region` out, by the taps of the layers that it changes."""
        changes, first = {}, 0
        for tap in self.taps:
            gone = [head for head in range(tap.heads) if first + head in region]
            first += tap.heads
            if gone:
                gates = np.ones(tap.heads, np.float32)
                gates[gone] = 0
                changes[tap.name] = LayerChange(gates, [None] * tap.heads)
        return changes

    def maps(self, weights: Floats) -> list[HeadMap]:
        """Divide `weights` [outcomes, heads] into those of each kind of attention in each stack."""
        ends = np.cumsum([tap.heads for tap in self.taps])
        layers = dict(zip(self.taps, np.split(weights, ends[:-1], axis=1), strict=True))
        families: dict[tuple[str, str], list[TapSpec]] = {}
        for tap in self.taps:
            families.setdefault((tap.stack, tap.kind), []).append(tap)
        return [HeadMap(tuple(taps), np.stack([layers[tap] for tap in taps], axis=1)) for taps in families.values()]


@dataclass(frozen=True, slots=True)
class HeadMap:
    """What the heads of one kind of attention in one stack are worth: `weights` [outcomes, layers, heads]."""

    taps: tuple[TapSpec, ...]
    weights: Floats


def heads_of(choice: AttentionChoice, manifest: Manifest, field: str) -> Heads:
    """Return the heads of the kinds, stacks and layers of `choice`: of all kinds that the stacks have, by default.

    Raises `InvalidInputError`, naming the field, for what the package lacks and for one that can't be intervened in.
    """
    usual = {tap.kind for tap in manifest.taps if not choice.stacks or tap.stack in choice.stacks}
    kinds = choice.kinds or tuple(kind for kind in AttentionKind if kind in usual)
    layers = AttentionChoice(kinds=kinds, stacks=choice.stacks, layers=choice.layers)
    (chosen,) = intervene([InterventionChoice(field, layers, KnockOut())], manifest)
    return Heads(chosen.taps)

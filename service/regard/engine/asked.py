"""What a batch asks of the attention of the graph that reads it, and whose row is whose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from regard.engine.memory import Array
from regard.engine.request import FloatArray
from regard.manifest import Manifest, TapSpec


@dataclass(frozen=True)
class Asked:
    """The taps of a graph that any request of a batch wants, and, by input of the graph, the rows that want one."""

    taps: tuple[TapSpec, ...]
    rows: dict[str, list[int]]
    wanted: Sequence[frozenset[str]]

    @classmethod
    def of(cls, manifest: Manifest, graph: str, wanted: Sequence[frozenset[str]]) -> Asked:
        """Gather what the requests of a batch, in its order, want of `graph`; `wanted` holds names of taps."""
        names = frozenset().union(*wanted)
        rows: dict[str, list[int]] = {"self_tap_rows": []}
        taps = []
        for tap in manifest.taps_of(graph):
            asking = rows.setdefault(tap.rows_input, [])
            if tap.name in names:
                taps.append(tap)
                asking += [row for row, own in enumerate(wanted) if tap.name in own and row not in asking]
        return cls(tuple(taps), {name: sorted(asking) for name, asking in rows.items()}, wanted)

    @property
    def feeds(self) -> dict[str, Array]:
        """What the graph is told: the asking rows, of no tap that nobody wants."""
        return {name: np.array(asking, np.int64) for name, asking in self.rows.items()}

    @property
    def outputs(self) -> list[str]:
        """What is to be fetched."""
        return [tap.output for tap in self.taps]

    def of_row(self, row: int, maps: Sequence[Array], length: int) -> dict[str, FloatArray]:
        """Return what one request asked for of the fetched `maps`, by name: [H, S, S], cut to its own length.

        They are views: whoever puts them into bytes makes the one copy that there need be.
        """
        return {
            tap.name: weights[self.rows[tap.rows_input].index(row), :, :length, :length]
            for tap, weights in zip(self.taps, maps, strict=True)
            if tap.name in self.wanted[row]
        }

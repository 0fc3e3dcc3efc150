"""Rows of maps as the steps that make tokens give them: what can be told of a map before it is whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from regard.attention.axes import AxisName, axis_names
from regard.attention.heads import FloatArray, mean_of_heads
from regard.attention.selection import Granularity, Reduction, Selection
from regard.manifest import TapSpec

Step = Mapping[str, FloatArray]
"""What one step gave of each tap, [heads, keys] by the tap's name."""


@dataclass(frozen=True, slots=True, eq=False)
class MapRow:
    """The row of the token `query`, counted from 0, of the map of a tap: float32 [heads, keys], 1 head if reduced."""

    tap: TapSpec
    heads: tuple[int, ...]
    reduction: Reduction
    query: int
    key_axis: AxisName
    weights: FloatArray


class RowReader:
    """Makes rows of one output's steps, exactly as `maps.build` makes whole maps of them."""

    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        told = selection.granularity is Granularity.TOKEN and selection.reduction is not Reduction.ROLLOUT
        self.taps = tuple(tap for tap in selection.maps if tap.graph == "step") if told else ()
        """Those of whose maps rows can be told; none where queries are words, or a map is of several layers."""
        spec = selection.alignment
        self._late = spec is not None and any(head.position == "input" for head in spec.heads)
        self._before: Step | None = None
        self._count = 0

    def read(self, step: Step, *, last: bool) -> list[MapRow]:
        """Return the rows that the step of the next token settles; `last` is the output's last one."""
        at, before = self._count, self._before
        self._count, self._before = at + 1, step if self._late else None
        if self._selection.alignment is None or not self.taps:
            return [self._row(tap, at, self._reduced(step[tap.name])) for tap in self.taps]
        steps = [step] if before is None else [before, step]
        settled = mean_of_heads(
            self._selection.alignment,
            {name: np.stack([one[name] for one in steps], axis=1) for name in self._selection.tap_names},
        )
        first = at + 1 - len(steps)
        ready = len(steps) if last or not self._late else len(steps) - 1
        return [self._row(self.taps[-1], first + index, settled[index][np.newaxis]) for index in range(ready)]

    def _reduced(self, weights: FloatArray) -> FloatArray:
        chosen = weights[list(self._selection.heads)] if self._selection.heads else weights
        match self._selection.reduction:
            case Reduction.MEAN:
                return np.asarray(chosen.mean(axis=0, keepdims=True))
            case Reduction.MAX:
                return np.asarray(chosen.max(axis=0, keepdims=True))
            case _:
                return chosen

    def _row(self, tap: TapSpec, query: int, weights: FloatArray) -> MapRow:
        heads, reduction = self._selection.heads_of(tap), self._selection.reduction
        return MapRow(tap, heads, reduction, query, axis_names(tap)[1], weights)

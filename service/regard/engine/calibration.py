"""Which split of the cores among instances serves most, found by measuring when a model is loaded.

What counts is what all instances of a split serve together while each has all that it can take. A
lone request has the threads of one instance, so it takes longer the more instances there are, and
each of them has rows of its own: so more instances must be faster by `LEAST_GAIN`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from regard.engine.instances import Sessions
from regard.engine.scheduler import Clock
from regard.engine.splits import Split
from regard.errors import RegardError
from regard.manifest import Task

ROUNDS = 3
"""Two splits take turns so many times, and each counts with its best round: what disturbs one only slows it."""
LEAST_GAIN = 1.05
"""How many times as much a split must serve to be taken in the place of one of fewer instances."""
BUDGET_S = 10.0
"""No other split is loaded, and no further round begun, after so many seconds."""

Figures = Mapping[Split, float | str]
"""What each split served a second; or why that isn't known."""


class Contender(Protocol):
    """A split whose instances are loaded."""

    @property
    def split(self) -> Split:
        """The split."""

    @property
    def sessions(self) -> Sessions:
        """What its instances share."""

    def serve(self) -> float:
        """Keep all instances fully busy for a moment, and return what they served a second.

        Raises `RegardError` if they can't.
        """


@dataclass(frozen=True)
class Calibration:
    """The split that is taken, and what was measured: nothing, if there was nothing to choose."""

    winner: Contender
    figures: Figures

    def told(self, task: Task) -> str:
        """Return every figure in one line: tokens, or, of a model that doesn't generate, inputs."""
        unit = "tokens/s" if task.generates else "inputs/s"
        return ", ".join(f"{split} {_told(figure, unit)}" for split, figure in self.figures.items())


def calibrate(splits: Iterable[Split], enter: Callable[[Split], Contender], clock: Clock) -> Calibration:
    """Let each of the splits, which `enter` loads, stand against the best of those before it.

    Never more than two are loaded; whichever lost is let go before the next one is. One that can't be
    loaded, or fails, is passed over; but if the first can't be loaded, that is raised.
    """
    deadline = clock() + BUDGET_S
    rest = iter(splits)
    best = enter(next(rest))
    figures: dict[Split, float | str] = {}
    for split in rest:
        if clock() < deadline:
            best = _better(best, split, enter, figures, lambda: clock() < deadline)
        else:
            figures[split] = "not tried"
    return Calibration(best, figures)


def _better(
    best: Contender,
    split: Split,
    enter: Callable[[Split], Contender],
    figures: dict[Split, float | str],
    in_time: Callable[[], bool],
) -> Contender:
    """Load a split and return the better of it and the best one so far; note their figures."""
    try:
        challenger = enter(split)
    except RegardError as error:
        figures[split] = f"failed: {error.message}"
        return best
    for turn in range(ROUNDS):
        if turn == 0 or in_time():
            _note(best, figures)
            _note(challenger, figures)
    return challenger if _rate(figures[split]) > LEAST_GAIN * _rate(figures[best.split]) else best


def _note(contender: Contender, figures: dict[Split, float | str]) -> None:
    """Let a contender serve, unless it has failed before, and keep the best of its figures."""
    before = figures.get(contender.split, 0.0)
    if isinstance(before, str):
        return
    try:
        figures[contender.split] = max(before, contender.serve())
    except RegardError as error:
        figures[contender.split] = f"failed: {error.message}"


def _rate(figure: float | str) -> float:
    return 0.0 if isinstance(figure, str) else figure


def _told(figure: float | str, unit: str) -> str:
    if isinstance(figure, str):
        return figure
    return f"{figure:,.0f} {unit}" if figure >= 100 else f"{figure:.3g} {unit}"

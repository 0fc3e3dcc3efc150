"""One input run again and again, each time without some of its parts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import numpy as np
import numpy.typing as npt

from regard.attention.parts import Erasure
from regard.engine.source import Source

Floats = npt.NDArray[np.float64]
Erase = Callable[[Erasure], Awaitable[Source]]
"""Takes parts away from an input."""
Score = Callable[[Source], Awaitable[Floats]]
"""Runs a model: what each outcome scores, [outcomes]."""


class Trials:
    """What the outcomes of one input score without some of its parts. Each such run is done once.

    `erase` makes the input of each; `places` bounds how many runs are under way at once, so that a request fills
    batches and not the queue.
    """

    def __init__(self, erase: Erase, score: Score, places: asyncio.Semaphore, whole: Floats) -> None:
        self._erase = erase
        self._score = score
        self._places = places
        self._whole = whole
        self._scores: dict[Erasure, Floats] = {}

    @property
    def runs(self) -> int:
        """How often the model was run, the whole input included."""
        return 1 + len(self._scores)

    async def run(self, erasures: Iterable[Erasure]) -> None:
        """Find the scores without each of `erasures`, side by side. If one run fails, the others are cancelled."""
        unknown = {erasure for erasure in erasures if erasure.parts} - self._scores.keys()
        try:
            async with asyncio.TaskGroup() as group:
                tasks = {erasure: group.create_task(self._run(erasure)) for erasure in unknown}
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        self._scores |= {erasure: task.result() for erasure, task in tasks.items()}

    def without(self, erasure: Erasure) -> Floats:
        """Return the scores [outcomes] of a run that was done; of the whole input, if nothing is taken away."""
        return self._scores[erasure] if erasure.parts else self._whole

    async def _run(self, erasure: Erasure) -> Floats:
        async with self._places:
            return await self._score(await self._erase(erasure))

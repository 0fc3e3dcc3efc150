"""One input run again and again, each time without some of its parts, or some of the model's heads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from functools import partial

import numpy as np
import numpy.typing as npt

from regard.attention.parts import Erasure
from regard.rpc.patience import patiently

Floats = npt.NDArray[np.float64]
Score = Callable[[Erasure], Awaitable[Floats]]
"""Runs a model: what each outcome scores, [outcomes], without what is taken away."""


class Trials:
    """What the outcomes of one input score without some of its parts, or some heads. Each such run is done once.

    `places` bounds how many runs are under way at once, so that a request fills batches and not the queue. The whole
    input was run before: a run that the queue refuses waits and is done all the same.
    """

    def __init__(self, score: Score, places: asyncio.Semaphore, whole: Floats) -> None:
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
            return await patiently(partial(self._score, erasure))

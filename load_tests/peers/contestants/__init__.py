"""The contestants: each answers sources, N at a time, with as many tokens as each source asks for.

Each has a module of its own, so that a process which runs one holds no other's libraries.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from load_tests.peers.sources import Source

R = TypeVar("R")


class Contestant(Protocol):
    """Whoever translates."""

    name: str

    def translate(self, sources: Sequence[Source], concurrency: int, beams: int = 1) -> list[int]:
        """Translate all `sources`, `concurrency` of them at any time, and return how many tokens each gave."""

    def peak_bytes(self) -> int:
        """Return the most memory that whoever runs the model has held, in bytes."""

    def close(self) -> None:
        """Free what it holds."""


async def side_by_side(jobs: Sequence[R], concurrency: int, run: Callable[[R], Awaitable[int]]) -> list[int]:
    """Run every job, `concurrency` at any time, and return their results in order."""
    results = [0] * len(jobs)
    waiting = iter(enumerate(jobs))

    async def caller() -> None:
        for index, job in waiting:
            results[index] = await run(job)

    await asyncio.gather(*(caller() for _ in range(concurrency)))
    return results

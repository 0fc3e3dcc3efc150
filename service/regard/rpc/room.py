"""Room for what the inputs of one request hold: an input that finds too little waits, and is not refused."""

from __future__ import annotations

import asyncio


class Room:
    """So much of something, such as samples of sound, that the inputs of a request hold together at most.

    Belongs to one event loop.
    """

    def __init__(self, size: int) -> None:
        self._free = size
        self._freed = asyncio.Event()

    async def take(self, amount: int) -> None:
        """Return once `amount` was free, and is taken."""
        while amount > self._free:
            self._freed.clear()
            await self._freed.wait()
        self._free -= amount

    def give_back(self, amount: int) -> None:
        """Free what was taken, or part of it."""
        self._free += amount
        self._freed.set()

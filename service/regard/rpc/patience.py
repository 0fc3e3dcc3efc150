"""The runs of a request that has begun: those that find the queue full wait, where the first is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from regard.engine.scheduler import LEAST_RETRY_S
from regard.errors import QueueFullError

T = TypeVar("T")


async def patiently(run: Callable[[], Awaitable[T]]) -> T:
    """Return what `run` gives; while the queue refuses it, wait for as long as it says and run again.

    It is for what comes behind a run that was accepted, and would be lost with this one. It has no end of its own:
    the call's deadline, or whoever leaves it, cancels it.
    """
    while True:
        try:
            return await run()
        except QueueFullError as error:
            await asyncio.sleep(error.retry_after_s or LEAST_RETRY_S)

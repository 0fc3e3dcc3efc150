"""What callers are to hear, on its way from an engine's threads to their event loops."""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict, deque
from collections.abc import Callable

import structlog

from regard.engine.request import Event
from regard.errors import RegardError

log = structlog.get_logger(__name__)

Outcome = Event | RegardError
Hear = Callable[[Outcome], None]


class Outbox:
    """Collects outcomes until they are posted; then each event loop is woken once, however many it has.

    To wake a loop is to let its thread run: doing so for each row of a step would interrupt the step
    as often. Any thread may use it.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[asyncio.AbstractEventLoop, Hear, Outcome]] = deque()
        self._posting = threading.Lock()

    def put(self, loop: asyncio.AbstractEventLoop, hear: Hear, outcome: Outcome) -> None:
        """Have `hear` called with `outcome` on the loop's thread, after all that was put before."""
        self._waiting.append((loop, hear, outcome))

    def post(self) -> None:
        """Send off everything that waits; a loop that has closed has nobody to tell."""
        with self._posting:
            letters: defaultdict[asyncio.AbstractEventLoop, list[tuple[Hear, Outcome]]] = defaultdict(list)
            while self._waiting:
                loop, hear, outcome = self._waiting.popleft()
                letters[loop].append((hear, outcome))
            for loop, own in letters.items():
                try:
                    loop.call_soon_threadsafe(_deliver, own)
                except RuntimeError:
                    log.debug("outcomes came after their event loop had closed", outcomes=len(own))


def _deliver(letters: list[tuple[Hear, Outcome]]) -> None:
    for hear, outcome in letters:
        hear(outcome)

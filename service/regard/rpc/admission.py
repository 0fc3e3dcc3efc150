"""Whether requests are taken, and how many are being served: what a drain waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from regard.errors import UnavailableError


class Admission:
    """The door of a server. It is used from the event loop only."""

    def __init__(self) -> None:
        self._open = True
        self._idle = asyncio.Event()
        self._idle.set()
        self.in_flight = 0
        self.refused = 0

    @property
    def accepting(self) -> bool:
        """Whether new requests are let in."""
        return self._open

    def close(self) -> None:
        """Let no new request in; those inside stay until they end."""
        self._open = False

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Hold a place for one request. Raises `UnavailableError` once the door is closed."""
        if not self._open:
            self.refused += 1
            raise UnavailableError("the server is shutting down and takes no new requests; try again, or elsewhere")
        self.in_flight += 1
        self._idle.clear()
        try:
            yield
        finally:
            self.in_flight -= 1
            if self.in_flight == 0:
                self._idle.set()

    async def wait_idle(self) -> None:
        """Return when no request is inside."""
        await self._idle.wait()

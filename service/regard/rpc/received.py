"""The requests that a server holds: how many bytes of them may be held at once."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from regard.errors import QueueFullError
from regard.rpc.attention import sized

LARGE_BYTES = 1 << 16
"""Shorter requests are not counted: as many as a queue holds are little."""
RETRY_S = 1.0


class LargeRequest:
    """A request that counts until it is let go, or nobody has it any more."""

    def __init__(self, message: Any, let_go: Callable[[], None]) -> None:
        self.message = message
        self.let_go = weakref.finalize(self, let_go)


class NoRoom:
    """Stands for a request that found no room."""


@dataclass
class Received:
    """Counts the large requests that have come and are not answered; it belongs to one event loop.

    A request takes a place in a queue once it is read, and a queue counts places. So many with images or long texts
    would fill the memory before they are refused.
    """

    max_bytes: int
    num_bytes: int = field(default=0, init=False)

    @property
    def full(self) -> bool:
        """Whether as much is held as may be."""
        return self.num_bytes >= self.max_bytes

    def has_room(self, num_bytes: int) -> bool:
        """Return whether a request of so many bytes may be held; one by itself always may."""
        return self.num_bytes == 0 or self.num_bytes + num_bytes <= self.max_bytes

    def hold(self, message: Any, num_bytes: int) -> LargeRequest:
        """Return a request that counts."""
        self.num_bytes += num_bytes
        return LargeRequest(message, partial(self._let_go, num_bytes))

    def refusal(self) -> QueueFullError:
        """Return what a request that finds no room ends with."""
        return QueueFullError(
            f"{sized(self.num_bytes)} of requests wait for answers already, of {sized(self.max_bytes)} that may "
            "(max_received_bytes); try again later, or elsewhere",
            retry_after_s=RETRY_S,
        )

    def _let_go(self, num_bytes: int) -> None:
        self.num_bytes -= num_bytes

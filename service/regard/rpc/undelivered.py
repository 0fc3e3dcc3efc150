"""What is ready for callers who have not taken it yet: how much attention may wait for them."""

from __future__ import annotations

from threading import Lock

from regard.errors import QueueFullError
from regard.rpc.attention import sized

RETRY_S = 1.0
"""After which a refused request may be tried again: whoever reads at all has read by then."""


class Undelivered:
    """Counts what all calls hold for their callers. Any thread may use it.

    Results leave the engine, and their places in its queue, before they are read: callers of many streams who read none
    would fill the memory with them.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._changing = Lock()

    @property
    def num_bytes(self) -> int:
        """The bytes of attention that wait."""
        return self._num_bytes

    def check(self) -> None:
        """Raise `QueueFullError` while as much waits as may."""
        if self._num_bytes >= self._max_bytes:
            raise QueueFullError(
                f"{sized(self._num_bytes)} of attention wait for callers who don't take them, and "
                f"{sized(self._max_bytes)} may (max_undelivered_bytes); read the answers of other calls, or try again",
                retry_after_s=RETRY_S,
            )

    def account(self) -> Account:
        """Return the account of one call."""
        return Account(self)

    def add(self, num_bytes: int) -> None:
        """Count so many more, or fewer."""
        with self._changing:
            self._num_bytes += num_bytes


class Account:
    """What one call holds. Any thread may use it."""

    def __init__(self, whole: Undelivered) -> None:
        self._whole = whole
        self._num_bytes = 0
        self._open = True
        self._changing = Lock()

    def add(self, num_bytes: int) -> None:
        """Count so many more, or fewer; none once the call has ended."""
        with self._changing:
            if self._open and num_bytes:
                self._num_bytes += num_bytes
                self._whole.add(num_bytes)

    def close(self) -> None:
        """Count nothing any more: the call has ended."""
        with self._changing:
            self._open = False
            self._whole.add(-self._num_bytes)
            self._num_bytes = 0

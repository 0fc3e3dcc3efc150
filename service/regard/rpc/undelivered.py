"""What is ready for callers who have not taken it yet: how much attention may wait for them."""

from __future__ import annotations

from threading import Lock

from regard.errors import CallerStalledError, QueueFullError
from regard.rpc.attention import sized

RETRY_S = 1.0
"""After which a refused request may be tried again: whoever reads at all has read by then."""


class Undelivered:
    """Counts what all calls hold for their callers. Any thread may use it and its accounts.

    Results leave the engine, and their places in its queue, before they are read: callers of many streams who read none
    would fill the memory with them. While more than half of `max_bytes` waits, no request for attention is taken, and
    of the streams under way those end that hold more than an even share of that half; beyond all of it, any that would
    hold more.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.changing = Lock()
        self.num_bytes = 0
        """The bytes of attention that wait."""
        self.holders = 0
        """The calls that some of them wait for."""

    def account(self) -> Account:
        """Return the account of one call."""
        return Account(self)

    def check(self) -> None:
        """Raise `QueueFullError` while more than half as much waits as may."""
        if self.num_bytes > self.half:
            raise QueueFullError(
                f"{sized(self.num_bytes)} of attention wait for callers who don't take them, more than half of the "
                f"{sized(self.max_bytes)} that may (max_undelivered_bytes); read the answers of other calls, or try "
                "again",
                retry_after_s=RETRY_S,
            )

    @property
    def half(self) -> int:
        """What may wait before anything is refused for it."""
        return self.max_bytes // 2

    def refuses(self, held: int, more: int) -> bool:
        """Return whether a stream that holds so many bytes has to end where there come so many more."""
        total = self.num_bytes + more
        return total > self.max_bytes or (total > self.half and held > self.half / max(self.holders, 1))


class Account:
    """What one call holds."""

    def __init__(self, whole: Undelivered) -> None:
        self._whole = whole
        self._num_bytes = 0
        self._open = True

    def add(self, num_bytes: int) -> None:
        """Count so many more, or fewer; none once the call has ended."""
        with self._whole.changing:
            if self._open:
                self._add(num_bytes)

    def add_streamed(self, num_bytes: int) -> None:
        """Do as `add` does. Raises `CallerStalledError`, and counts nothing, if the stream has to end for it."""
        with self._whole.changing:
            if num_bytes > 0 and self._whole.refuses(self._num_bytes, num_bytes):
                raise CallerStalledError(
                    f"{sized(self._whole.num_bytes)} of attention wait to be read by this and other callers, and "
                    f"{sized(self._whole.max_bytes)} may (max_undelivered_bytes); read streams while they come, or ask "
                    "for less attention"
                )
            if self._open:
                self._add(num_bytes)

    def close(self) -> None:
        """Count nothing any more: the call has ended."""
        with self._whole.changing:
            self._open = False
            self._add(-self._num_bytes)

    def _add(self, num_bytes: int) -> None:
        held = self._num_bytes > 0
        self._num_bytes += num_bytes
        self._whole.num_bytes += num_bytes
        self._whole.holders += (self._num_bytes > 0) - held

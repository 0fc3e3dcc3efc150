"""How an instance divides its time between requests that come and rows that decode."""

from __future__ import annotations


class EncodeShare:
    """How much of an instance's time encoding may take while rows are decoding.

    Decoding earns time for encoding and encoding spends it. A batch may begin whenever nothing is
    owed, so rows that decode stand still for one batch at most, and over any longer while for no
    more than `share` of it.
    """

    def __init__(self, share: float) -> None:
        self._earned_per_second = share / (1 - share)
        self._credit_s = 0.0

    @property
    def owes(self) -> bool:
        """Whether the rows that decode are still owed time."""
        return self._credit_s < 0

    def encoded(self, seconds: float) -> None:
        """Spend the time of an encoder run."""
        self._credit_s -= seconds

    def decoded(self, seconds: float) -> None:
        """Earn for the time of a step; what is not spent is not saved up."""
        self._credit_s = min(self._credit_s + seconds * self._earned_per_second, 0.0)

    def forget(self) -> None:
        """Owe nothing: no row is decoding."""
        self._credit_s = 0.0

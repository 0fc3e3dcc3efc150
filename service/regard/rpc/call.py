"""What is known of the request that the running task serves, for its metrics and its line in the log."""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass, field

from regard.metrics import ModelLabels


@dataclass(slots=True)
class Call:
    """One request: when it came and has to be answered (seconds of `time.monotonic()`), and what it holds."""

    method: str
    deadline: float | None = None
    started: float = field(default_factory=time.monotonic)
    labels: ModelLabels = field(default_factory=ModelLabels)
    inputs: int = 0
    failures: int = 0

    @property
    def expired(self) -> bool:
        """Whether the caller's deadline has passed."""
        return self.deadline is not None and time.monotonic() >= self.deadline


current_call: ContextVar[Call] = ContextVar("current_call")

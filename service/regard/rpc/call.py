"""What is known of the request that the running task serves, for its metrics and its line in the log."""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass, field

from regard.engine.request import Priority
from regard.metrics import ModelLabels
from regard.rpc.undelivered import Account
from regard.rpc.wire import Weights

_SLACK = 0.02
_LEAST_SLACK_S = 0.05


@dataclass(slots=True)
class Call:
    """One request: when it came and has to be answered (seconds of `time.monotonic()`), who sent it, what it holds."""

    method: str
    held: Account
    """What is ready for the caller and not taken yet."""
    deadline: float | None = None
    client: str = ""
    priority: Priority = Priority.NORMAL
    started: float = field(default_factory=time.monotonic)
    labels: ModelLabels = field(default_factory=ModelLabels)
    inputs: int = 0
    failures: int = 0
    weights: Weights = field(init=False)
    """Those of the maps that it answers with."""

    def __post_init__(self) -> None:
        self.weights = Weights(self.held.add)

    @property
    def expired(self) -> bool:
        """Whether the caller's deadline has passed, or is so near that it is why the caller gave up.

        The deadline is rounded up by a percent or so on its way here: the caller's own passes first.
        """
        if self.deadline is None:
            return False
        slack = max(_LEAST_SLACK_S, _SLACK * (self.deadline - self.started))
        return time.monotonic() >= self.deadline - slack


current_call: ContextVar[Call] = ContextVar("current_call")

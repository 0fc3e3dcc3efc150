"""What a load test measured: every request, and its figures by loop and kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

QUANTILES = (0.5, 0.95, 0.99)


@dataclass(frozen=True, slots=True)
class Sample:
    """One request. `started_s` counts from the begin of the test, and is when it was due in an open loop."""

    loop: str
    kind: str
    started_s: float
    latency_ms: float
    failure: str | None

    @property
    def ended_s(self) -> float:
        """When it was answered, or had failed."""
        return self.started_s + self.latency_ms / 1000


@dataclass(frozen=True, slots=True)
class Phase:
    """The seconds of the test that belonged to one loop, and what that loop did, in a few words."""

    loop: str
    about: str
    begin_s: float
    end_s: float

    @property
    def seconds(self) -> float:
        """How long it was."""
        return self.end_s - self.begin_s


@dataclass(frozen=True, slots=True)
class Row:
    """A kind's figures in a loop; `latency_ms` are the quantiles of its answers, and None without any."""

    loop: str
    kind: str
    requests: int
    failures: int
    per_s: float
    latency_ms: tuple[float, ...] | None


@dataclass(frozen=True)
class Measures:
    """A test's requests. `expected` are the kinds that it was to ask in each of its phases."""

    expected: Sequence[str]
    phases: list[Phase] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)

    def of(self, loop: str, kind: str | None = None) -> list[Sample]:
        """Return the requests of a loop, or those of one kind."""
        return [one for one in self.samples if one.loop == loop and kind in (None, one.kind)]

    def rate(self, phase: Phase) -> float:
        """Return how many requests a second a phase answered."""
        return sum(one.failure is None for one in self.of(phase.loop)) / phase.seconds

    @property
    def rows(self) -> list[Row]:
        """The figures of every kind in every phase, also of the kinds that nothing was asked of."""
        return [self._row(phase, kind) for phase in self.phases for kind in self.expected]

    @property
    def faults(self) -> list[str]:
        """Why the test is failed, in sentences; empty if it isn't."""
        failures = Counter((one.loop, one.kind, one.failure) for one in self.samples if one.failure is not None)
        missing = [row for row in self.rows if not row.requests]
        return [
            *(f"{loop} loop: {count} × {kind} failed: {why}" for (loop, kind, why), count in failures.most_common()),
            *(f"{row.loop} loop: no request of the kind {row.kind} was made" for row in missing),
        ]

    def _row(self, phase: Phase, kind: str) -> Row:
        samples = self.of(phase.loop, kind)
        answered = [one.latency_ms for one in samples if one.failure is None]
        return Row(
            loop=phase.loop,
            kind=kind,
            requests=len(samples),
            failures=len(samples) - len(answered),
            per_s=len(answered) / phase.seconds,
            latency_ms=tuple(np.quantile(answered, QUANTILES).tolist()) if answered else None,
        )

"""What the engine tells of itself while it runs."""

from __future__ import annotations

from typing import Protocol


class Observer(Protocol):
    """Called on the engine's threads; must not block."""

    def loaded(self, instances: int, threads: int) -> None:
        """Note how many instances run the model, and the threads within a run of each."""

    def ran(self, graph: str, rows: int, tokens: int, seconds: float) -> None:
        """Note one run of a graph: its rows, its padded tokens (a step: its rows), its time."""

    def queue(self, waiting: int, rows: int) -> None:
        """Note how many requests wait and how many rows the others have, whenever either changes."""


class SilentObserver:
    """Notes nothing."""

    def loaded(self, instances: int, threads: int) -> None:
        """Note nothing."""

    def ran(self, graph: str, rows: int, tokens: int, seconds: float) -> None:
        """Note nothing."""

    def queue(self, waiting: int, rows: int) -> None:
        """Note nothing."""

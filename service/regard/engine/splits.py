"""How a machine's cores are split: so many instances of a model, each of whose runs has so many threads."""

from __future__ import annotations

import os
from typing import NamedTuple

from regard.config import MOST_INSTANCES, EngineSettings


class Split(NamedTuple):
    """So many instances, each of whose runs has so many threads."""

    instances: int
    threads: int

    def __str__(self) -> str:
        """Return it as it is logged."""
        return f"{self.instances} x {self.threads} thread{'s' if self.threads > 1 else ''}"


def settings_of(split: Split, settings: EngineSettings) -> EngineSettings:
    """Return the settings with a split in them, whatever they said of it."""
    return settings.model_copy(update={"instances": split.instances, "intra_op_threads": split.threads})


def splits_of(threads: int) -> list[Split]:
    """Return the ways to split so many threads that are worth a try: one instance first, then ever more.

    Each has half as many threads a run as the one before it, and as many instances as that allows.
    """
    splits = [Split(1, threads)]
    while (threads := threads // 2) and (instances := splits[0].threads // threads) <= MOST_INSTANCES:
        splits.append(Split(instances, threads))
    return splits


def available_cores() -> int:
    """Return how many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

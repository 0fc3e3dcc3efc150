"""The instances of a model: engines side by side that share its sessions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from regard.config import EngineSettings
from regard.engine.classifier import Classifier
from regard.engine.generator import Generator
from regard.engine.observer import Observer
from regard.engine.scheduler import Clock, Scheduler
from regard.engine.session import NO_TWINS, Session
from regard.errors import PackageError, RegardError
from regard.manifest import Manifest, Task

GRAPHS: dict[Task, tuple[str, ...]] = {
    Task.TRANSLATION: ("encoder", "step"),
    Task.CAPTIONING: ("encoder", "step"),
    Task.COMPLETION: ("prefill", "step"),
    Task.TRANSCRIPTION: ("encoder", "step"),
    Task.CLASSIFICATION: ("classifier",),
    Task.TOKEN_CLASSIFICATION: ("classifier",),
    Task.QUESTION_ANSWERING: ("classifier",),
    Task.SIMILARITY: ("text_encoder", "image_encoder"),
}
"""The graphs that an engine of each task runs, in order; where a prefill is, it takes the encoder's place."""

Sessions = Mapping[str, Session]
"""The graphs that the instances of a model share, by name."""


class Engine(Protocol):
    """What a thread drives: `step()` again and again, while there is work."""

    @property
    def busy(self) -> bool:
        """Whether a step has work even if nothing waits."""

    def step(self) -> None:
        """Do the next piece of work."""

    def fail_all(self, error: RegardError) -> None:
        """End everything that is under way with `error`. Raises what the device does if it works no more."""


def graphs_of(manifest: Manifest) -> tuple[str, ...]:
    """Return the graphs that an engine of the package runs, in order. Raises `PackageError` if one is missing."""
    graphs = tuple(manifest.reader if graph == "encoder" else graph for graph in GRAPHS[manifest.task])
    if missing := [graph for graph in graphs if graph not in manifest.graphs]:
        label = f"{manifest.name}/{manifest.version}"
        raise PackageError(f"package {label}: its manifest has no graph {missing[0]!r}; export it again")
    return graphs


def engine_of(
    manifest: Manifest,
    sessions: Sessions,
    scheduler: Scheduler,
    settings: EngineSettings,
    clock: Clock,
    observer: Observer,
    intervened: Sessions = NO_TWINS,
) -> Engine:
    """Return one instance on the sessions of the graphs that `graphs_of` names."""
    shared = (scheduler, settings, clock, observer, intervened)
    if "step" in sessions:
        return Generator(manifest, sessions[manifest.reader], sessions["step"], *shared)
    return Classifier(manifest, sessions, *shared)

"""A running batch of the engine's own, without a worker: its steps one at a time, and where their time goes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from load_tests.peers.sources import Source
from regard.config import EngineSettings
from regard.engine.generator import Generator
from regard.engine.lane import Lane
from regard.engine.memory import Array, Memory, Tensor
from regard.engine.observer import SilentObserver
from regard.engine.request import GenerateRequest
from regard.engine.scheduler import Scheduler
from regard.engine.search.options import GenerationOptions
from regard.engine.session import Binding, Session
from regard.engine.source import Tokens
from regard.engine.ticket import Ticket
from regard.loading import open_session
from regard.manifest import load_package


@dataclass
class Watched:
    """A session whose runs are timed, and which remembers what it was last bound to."""

    session: Session
    seconds: list[float] = field(default_factory=list)
    bound: tuple[dict[str, Any], dict[str, Any], list[str]] = field(default_factory=lambda: ({}, {}, []))

    @property
    def inputs(self) -> frozenset[str]:
        """The names of the graph's inputs."""
        return self.session.inputs

    @property
    def provider(self) -> str:
        """The execution provider that the graph runs on."""
        return self.session.provider

    @property
    def memory(self) -> Memory:
        """Where the state of rows lies."""
        return self.session.memory

    def run(self, feeds: Mapping[str, Tensor], fetches: Sequence[str]) -> list[Array]:
        """Run on `feeds`, untimed."""
        return self.session.run(feeds, fetches)

    def run_keeping(
        self, feeds: Mapping[str, Tensor], kept: Sequence[str], fetches: Sequence[str]
    ) -> tuple[list[Tensor], list[Array]]:
        """Run as `run` does, untimed."""
        return self.session.run_keeping(feeds, kept, fetches)

    def bind(self, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor], fetches: Sequence[str]) -> Binding:
        """Tie the graph to buffers, and remember them."""
        self.bound = (dict(inputs), dict(outputs), list(fetches))
        return _Timed(self.session.bind(inputs, outputs, fetches), self.seconds)


@dataclass
class _Timed:
    binding: Binding
    seconds: list[float]

    def run(self) -> list[Array]:
        started = time.perf_counter()
        maps = self.binding.run()
        self.seconds.append(time.perf_counter() - started)
        return maps


class Decoding:
    """Greedy rows that end in `steps` steps and tell scores.

    `step` is one of the engine, `graph_s` its runs of the step graph.
    """

    def __init__(self, package: Path, sources: Sequence[Source], threads: int, steps: int) -> None:
        """Load the package and let the sources be read; each becomes a row."""
        settings = EngineSettings(
            intra_op_threads=threads, max_rows=max(64, len(sources)), max_queue=max(64, len(sources))
        )
        opened = load_package(package)
        step = opened.manifest.graphs["step"]
        graph = opened.manifest.graphs[step.lone_graph] if step.lone_graph and len(sources) == 1 else step
        self.graph = opened.path(graph.file)
        """The graph that these rows' steps run."""
        encoder = open_session(opened, opened.manifest.reader, settings)
        self.watched = Watched(open_session(opened, "step", settings))
        scheduler = Scheduler(settings)
        self._generator = Generator(
            opened.manifest, encoder, self.watched, scheduler, settings, time.monotonic, SilentObserver()
        )
        for source in sources:
            options = GenerationOptions(max_new_tokens=steps)
            request = GenerateRequest(Tokens(np.array(source.token_ids, np.int64)), options)
            scheduler.submit(Ticket(request, lambda outcome: None, time.monotonic()))
        self.step()

    @property
    def lane(self) -> Lane:
        """The rows."""
        return self._generator.lanes[1, False]

    @property
    def graph_s(self) -> list[float]:
        """How long each run of the step graph took."""
        return self.watched.seconds

    def step(self) -> float:
        """Give every row its next token, and return how many seconds that took."""
        started = time.perf_counter()
        self._generator.step()
        return time.perf_counter() - started

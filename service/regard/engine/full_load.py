"""Instances that always have all the work that they can take: what a split of the cores is measured by.

Requests are made up from the manifest. A new one comes whenever one ends, so each instance keeps a full
encoder batch of them, and those that generate end one after the other: every step brings a few newcomers
that must be read, as it is while callers wait in line. The engines, the queue and the threads are those of
the service, so that what Python takes between runs counts as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import numpy as np

from regard.config import EngineSettings
from regard.engine.instances import Engine, Sessions, engine_of
from regard.engine.observer import SilentObserver
from regard.engine.request import ClassifyRequest, Event, GenerateRequest, Request, TokenEvent
from regard.engine.scheduler import Clock, Scheduler
from regard.engine.search.options import GenerationOptions
from regard.engine.source import Pixels, Sound, Source, Tokens
from regard.engine.splits import Split
from regard.engine.ticket import Ticket
from regard.errors import EngineError, RegardError
from regard.manifest import Manifest

ROUND_S = 0.25
"""How long a round is; it ends with the step that is under way."""
SOURCE_TOKENS = TARGET_TOKENS = 32
"""How long texts are, and what is generated, where the model takes so much: about a sentence."""


class FullLoad:
    """A split at full load, as `regard.engine.calibration.Contender` asks for it."""

    def __init__(
        self, manifest: Manifest, sessions: Sessions, split: Split, settings: EngineSettings, clock: Clock
    ) -> None:
        self.split = split
        self.sessions = sessions
        self._clock = clock
        sources = sources_of(manifest)
        longest = max(source.length for source in sources)
        waiting = split.instances * max(1, min(settings.max_rows, settings.max_batch_tokens // longest))
        roomy = settings.model_copy(update={"max_queue": waiting, "max_queue_s": math.inf})
        scheduler = Scheduler(roomy, split.instances)
        self._counts = [_Count(manifest) for _ in range(split.instances)]
        self._engines = [
            engine_of(_endless(manifest), sessions, scheduler, roomy, clock, served) for served in self._counts
        ]
        self._arrivals = _Arrivals(scheduler, _requests(manifest, sources, waiting), clock)
        for _ in range(waiting):
            self._arrivals.submit()

    def serve(self) -> float:
        """Go on for a round; return the tokens that were generated a second, or the inputs that were answered.

        Raises `EngineError` if a request fails.
        """
        with ThreadPoolExecutor(self.split.instances) as threads:
            return sum(threads.map(self._serve, self._engines, self._counts))

    def _serve(self, engine: Engine, served: _Count) -> float:
        if not served.count:  # the first step has everybody's source to read
            self._step(engine)
        started, before = self._clock(), served.count
        while (seconds := self._clock() - started) < ROUND_S or served.count == before:
            self._step(engine)
        return (served.count - before) / seconds

    def _step(self, engine: Engine) -> None:
        try:
            engine.step()
        except Exception as error:
            raise EngineError("the engine failed on made-up requests") from error
        if self._arrivals.problem is not None:
            raise self._arrivals.problem


class _Arrivals:
    """Requests that follow one another; `problem` is what one ended with that failed."""

    def __init__(self, scheduler: Scheduler, requests: Iterator[Request], clock: Clock) -> None:
        self._scheduler = scheduler
        self._requests = requests
        self._clock = clock
        self.problem: RegardError | None = None

    def submit(self) -> None:
        self._scheduler.submit(Ticket(next(self._requests), self._ended, self._clock()))

    def _ended(self, outcome: Event | RegardError) -> None:
        if isinstance(outcome, RegardError):
            self.problem = outcome
        elif not isinstance(outcome, TokenEvent):
            self.submit()


class _Count(SilentObserver):
    """Counts what one instance serves: tokens, or inputs of a model that doesn't generate."""

    def __init__(self, manifest: Manifest) -> None:
        self._step_only = manifest.task.generates
        self.count = 0

    def ran(self, graph: str, rows: int, tokens: int, seconds: float) -> None:
        if graph == "step" or not self._step_only:
            self.count += rows


def sources_of(manifest: Manifest) -> list[Source]:
    """Return a made-up source of each kind that the model reads.

    The ids of a text go up to the one that pads, so that the model knows them; which they are makes no
    difference in time.
    """
    random = np.random.default_rng(0)
    sources: list[Source] = []
    text, image, audio = manifest.text, manifest.image, manifest.audio
    if text is not None and text.max_source_tokens is not None:
        length = text.max_source_tokens if text.padded_to else min(SOURCE_TOKENS, text.max_source_tokens)
        if manifest.generation is not None and manifest.reader == "prefill":  # a prompt, and what follows it
            length = min(length, manifest.generation.max_target_tokens // 2 + 1)
        sources.append(Tokens(random.integers(text.pad_token_id + 1, size=length)))
    if image is not None:
        pixels = random.standard_normal((len(image.mean), image.height, image.width), np.float32)
        sources.append(Pixels(pixels, image.positions))
    if audio is not None:
        sources.append(Sound(random.standard_normal((audio.mel_bins, audio.frames), np.float32), audio.positions))
    return sources


def _requests(manifest: Manifest, sources: list[Source], first: int) -> Iterator[Request]:
    """Yield requests for ever; the `first` ones of a model that generates end one after the other."""
    for number in count():
        source = sources[number % len(sources)]
        if manifest.generation is None:
            yield ClassifyRequest(source)
            continue
        before = source.length - 1 if manifest.reader == "prefill" and isinstance(source, Tokens) else 0
        most = min(TARGET_TOKENS, manifest.generation.max_target_tokens - before)
        tokens = 1 + number * most // first if number < first else most
        yield GenerateRequest(source, GenerationOptions(max_new_tokens=tokens))


def _endless(manifest: Manifest) -> Manifest:
    """Return the manifest of a model that doesn't end its texts: they are as long as is asked for."""
    if manifest.generation is None:
        return manifest
    return manifest.model_copy(update={"generation": manifest.generation.model_copy(update={"eos_token_ids": ()})})

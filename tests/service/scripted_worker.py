"""A worker without a model, for the tests of all that is around one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager

import numpy as np

from regard.engine.request import (
    Classification,
    ClassifyRequest,
    FinishReason,
    FloatArray,
    GeneratedSequence,
    GenerateRequest,
    Generation,
    Phases,
    TokenEvent,
)
from regard.engine.source import Source, Tokens
from regard.errors import DeadlineExceededError, QueueFullError, RegardError, UnavailableError
from regard.manifest import Package, TapSpec
from regard.metrics import ModelObserver

Request = GenerateRequest | ClassifyRequest
CAPTION = (7, 8, 9, 0)
"""The tokens that every image is captioned with: three of the tiny vocabulary, and the end."""


class ScriptedWorker:
    """Translates a text to itself, token by token, captions every image alike, and classifies by length.

    Where an output is to be scored, that is the one.

    `steps` is the leash: while it is clear, nothing advances; it is drawn in once a text has
    `pause_after` tokens. `fail` may give the error that a
    request ends with; `capacity` is how many requests may be inside, those that are being read among them.
    """

    def __init__(self, package: Package, observer: ModelObserver) -> None:
        self.package = package
        self.provider = "ScriptedExecutionProvider"
        self.instances = 1
        self.observer = observer
        self.ready = False
        self.loop: asyncio.AbstractEventLoop | None = None
        self.steps = asyncio.Event()
        self.steps.set()
        self.pause_after: int | None = None
        self.capacity = 1000
        self.fail: Callable[[Request], Exception | None] = lambda request: None
        self.seen: list[Request] = []
        self.foreseen: list[Request] = []
        self.expected = 0
        self.inside = 0
        self.left_early = 0
        self.refused = 0
        self.changed = asyncio.Condition()

    def start(self) -> None:
        """Be ready at once."""
        self.observer.loaded(self.instances, 1)
        self.ready = True

    def stop(self) -> None:
        """End what is inside with `UnavailableError`. Called from another thread than the event loop's."""
        self.ready = False
        if self.loop is not None:
            self.loop.call_soon_threadsafe(self.steps.set)

    async def until_inside(self, count: int) -> None:
        """Return when `count` requests are inside."""
        await self.until(lambda: self.inside == count)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return when `condition`, which looks at this worker's counts, holds."""
        async with self.changed:
            await self.changed.wait_for(condition)

    @contextmanager
    def expecting(self, foreseen: Request) -> Iterator[None]:
        """Hold room for one more."""
        self._check_room()
        self.foreseen.append(foreseen)
        self.expected += 1
        try:
            yield
        finally:
            self.expected -= 1

    def check_room(self, foreseen: Request) -> None:
        """Refuse what there is no room for."""
        self._check_room()

    async def run(self, request: Request) -> Generation | Classification:
        """Return the result of one input."""
        if isinstance(request, ClassifyRequest):
            return await self._classify(request)
        async for event in self.stream(request):
            if isinstance(event, Generation):
                return event
        raise AssertionError("a stream ends with its result")

    async def stream(
        self, request: GenerateRequest, *, held: Callable[[int], None] = lambda num_bytes: None
    ) -> AsyncGenerator[TokenEvent | Generation, None]:
        """Yield the tokens of the input as its own translation, then the result; nothing waits here to be `held`."""
        await self._enter(request)
        try:
            tokens = [*request.options.target_token_ids] or words_for(request.source)[: request.options.max_new_tokens]
            taps = self._taps(request, len(tokens))
            for index, token in enumerate(tokens):
                if index == self.pause_after:
                    self.steps.clear()
                await self._step(request)
                rows = {name: taps[name][:, index] for name in taps if self._tap(name).graph == "step"}
                yield TokenEvent(token, -0.5, index == len(tokens) - 1, rows)
        except BaseException:
            self.left_early += 1
            raise
        finally:
            await self._leave()
        yield self._generation(request, tokens)

    async def _classify(self, request: ClassifyRequest) -> Classification:
        await self._enter(request)
        try:
            await self._step(request)
            length = request.source.length
            spec = self.package.manifest.classification
            assert spec is not None
            logits = np.zeros(len(spec.labels), dtype=np.float32)
            logits[length % len(logits)] = 3.0
            self.observer.ran("classifier", 1, length, 0.002)
            taps = {name: self._weights(self._tap(name), length, length) for name in request.taps}
            return Classification(output=logits, phases=Phases(queue_s=0.001, encode_s=0.002), taps=taps)
        except BaseException:
            self.left_early += 1
            raise
        finally:
            await self._leave()

    async def _enter(self, request: Request) -> None:
        self.loop = asyncio.get_running_loop()
        if not self.ready:
            raise UnavailableError("the model is stopped")
        self._check_room()
        self.seen.append(request)
        error = self.fail(request)
        if error is not None:
            raise error
        await self._count(+1)

    def _check_room(self) -> None:
        if self.inside + self.expected >= self.capacity:
            self.refused += 1
            raise QueueFullError(f"{self.capacity} requests wait already; try again later")

    async def _leave(self) -> None:
        await self._count(-1)

    async def _count(self, change: int) -> None:
        self.inside += change
        self.observer.queue(0, self.inside)
        async with self.changed:
            self.changed.notify_all()

    async def _step(self, request: Request) -> None:
        remaining = None if request.deadline is None else request.deadline - time.monotonic()
        try:
            async with asyncio.timeout(remaining):
                await self.steps.wait()
            if not self.ready:
                raise UnavailableError("the model is stopped")
        except TimeoutError as error:
            raise DeadlineExceededError("the deadline passed before the result was ready") from error
        await asyncio.sleep(0)  # so that inputs take turns
        if isinstance(request, GenerateRequest):
            self.observer.ran("step", 1, 1, 0.001)

    def _generation(self, request: GenerateRequest, tokens: list[int]) -> Generation:
        ended = len(tokens) == len(words_for(request.source))
        sequence = GeneratedSequence(
            token_ids=tokens,
            log_probabilities=[-0.5] * len(tokens),
            score=-0.5 * len(tokens),
            finish_reason=FinishReason.END_OF_SENTENCE if ended else FinishReason.LENGTH,
            taps=self._taps(request, len(tokens)),
        )
        return Generation([sequence], Phases(queue_s=0.001, encode_s=0.002, decode_s=0.003))

    def _taps(self, request: GenerateRequest, target_tokens: int) -> dict[str, FloatArray]:
        lengths = {"source": request.source.length, "target": target_tokens}
        taps = {}
        for name in request.taps:
            tap = self._tap(name)
            queries = lengths["target" if tap.stack == "decoder" else "source"]
            keys = lengths["source" if tap.kind == "cross" or tap.stack == "encoder" else "target"]
            taps[name] = self._weights(tap, queries, keys)
        return taps

    def _tap(self, name: str) -> TapSpec:
        return next(tap for tap in self.package.manifest.taps if tap.name == name)

    def _weights(self, tap: TapSpec, queries: int, keys: int) -> FloatArray:
        random = np.random.default_rng(abs(hash((tap.layer, queries, keys))))
        raw = random.random((tap.heads, queries, keys), dtype=np.float32) + 0.1
        return np.asarray(raw / raw.sum(axis=2, keepdims=True), dtype=np.float32)


def words_for(source: Source) -> list[int]:
    """Return what the worker answers: a text's own tokens, and the same few for every image."""
    return [int(token) for token in source.input_ids] if isinstance(source, Tokens) else [*CAPTION]


def failing_for(length: int, error: RegardError | Exception) -> Callable[[Request], Exception | None]:
    """Return a script that fails the inputs of `length` tokens with `error`."""
    return lambda request: error if request.source.length == length else None

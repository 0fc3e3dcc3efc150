"""One model at work: the threads of its instances, between asyncio and the engine's `step()`.

`run` and `stream` live on the event loop and only move messages; `step()` runs on a thread of its
own for each instance. Every instance has the same sessions, so the weights are held once. What a step
tells its callers leaves when the step ends.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager

import structlog

from regard.config import EngineSettings
from regard.engine.full_load import FullLoad
from regard.engine.instances import Engine, engine_of
from regard.engine.interventions import concerns
from regard.engine.observer import Observer
from regard.engine.request import Classification, Event, GenerateRequest, Generation, Request, TokenEvent
from regard.engine.scheduler import Clock, Scheduler
from regard.engine.session import OnFirstUse, Session
from regard.engine.ticket import Ticket
from regard.errors import EngineError, RegardError, RequestCancelledError, UnavailableError
from regard.loading import ContenderFactory, LateOpening, Loader, SessionFactory, open_session
from regard.manifest import Package
from regard.outbox import Outbox

log = structlog.get_logger(__name__)

GATHER_S = 5e-5
"""For so long an instance that was idle lets other threads run before it takes a batch, where callers are many.

One that comes with others, as after a batch that was answered, would otherwise be taken alone, and the others wait
until it is read.
"""


class Worker:
    """A model and its instances. `start` loads it, `stop` ends it."""

    def __init__(
        self,
        package: Package,
        settings: EngineSettings,
        observer: Observer,
        *,
        open_session: SessionFactory = open_session,
        contender: ContenderFactory = FullLoad,
        clock: Clock = time.monotonic,
    ) -> None:
        self.package = package
        self._observer = observer
        self._open_session = open_session
        self._loader = Loader(package, settings, open_session, contender)
        self._clock = clock
        self._scheduler = Scheduler(settings)
        self.engines: list[Engine] = []
        """One for each instance, once started; each belongs to its own thread."""
        self._intervened: dict[str, OnFirstUse] = {}
        self._loading: dict[str, asyncio.Task[Session]] = {}
        self._threads: list[threading.Thread] = []
        self._changed = threading.Condition()
        self._outstanding: set[Ticket] = set()
        self._most_at_once = 0
        """The most that were outstanding at any time since an instance was last found idle."""
        self._outbox = Outbox()
        self._provider = ""
        self._accepting = False
        self._stopping = False

    @property
    def ready(self) -> bool:
        """Whether requests are taken: the model is loaded, and neither stopped nor broken."""
        return self._accepting

    @property
    def waiting(self) -> int:
        """How many requests wait in the queue."""
        return self._scheduler.waiting

    @property
    def running(self) -> int:
        """How many requests are being worked on."""
        return self._scheduler.running

    @property
    def provider(self) -> str:
        """The execution provider that the model really runs on; empty before `start`."""
        return self._provider

    @property
    def instances(self) -> int:
        """How many instances run the model; 0 before `start`."""
        return len(self.engines)

    def start(self) -> None:
        """Load the sessions and start the threads. Blocks; raises `PackageError` if a graph won't load."""
        self.engines = self._build()
        for index, engine in enumerate(self.engines):
            name = f"{self.package.manifest.name}-{index}"
            thread = threading.Thread(target=self._work, args=(engine,), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
        self._accepting = True

    @contextmanager
    def expecting(self, foreseen: Request) -> Iterator[None]:
        """Hold room in the queue while the source of a request is read, which `run` or `stream` is given then.

        Raises at once what they would raise for a full queue, or for a deadline that can't be kept.
        """
        self._check_accepting()
        ticket = Ticket(foreseen, lambda outcome: None, self._clock())
        self._scheduler.expect(ticket)
        try:
            yield
        finally:
            self._scheduler.unexpect(ticket)

    def check_room(self, foreseen: Request) -> None:
        """Raise what `expecting` would, and hold nothing."""
        with self.expecting(foreseen):
            pass

    async def run(self, request: Request) -> Generation | Classification:
        """Return the result of `request`. Cancelling this call takes the request out of the batch."""
        await self._load_twins(request)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Generation | Classification] = loop.create_future()

        def settle(outcome: Event | RegardError) -> None:
            if future.done():
                return
            if isinstance(outcome, RegardError):
                future.set_exception(outcome)
            elif not isinstance(outcome, TokenEvent):
                future.set_result(outcome)

        ticket = self._submit(request, lambda outcome: self._outbox.put(loop, settle, outcome))
        try:
            return await future
        finally:
            self._abandon(ticket)

    async def stream(
        self, request: GenerateRequest, *, held: Callable[[int], None] = lambda num_bytes: None
    ) -> AsyncGenerator[TokenEvent | Generation, None]:
        """Yield each token of `request` as it is made, then the result.

        The request must be `streaming`. Closing the iterator takes it out of the batch. `held` is told, on the event
        loop, of bytes of weights that come, and as negative numbers of those that have been taken; a `RegardError` that
        it raises ends the stream.
        """
        await self._load_twins(request)
        loop = asyncio.get_running_loop()
        untaken = _Untaken(held)
        ticket = self._submit(request, lambda outcome: self._outbox.put(loop, untaken.put, outcome))
        try:
            while True:
                event = await untaken.get()
                if isinstance(event, RegardError):
                    raise event
                assert not isinstance(event, Classification)
                yield event
                untaken.taken(event)
                if isinstance(event, Generation):
                    return
        finally:
            untaken.close()
            self._abandon(ticket)

    def stop(self) -> None:
        """End the threads; a request that is still under way ends with `UnavailableError`."""
        self._accepting = False
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        self._end(UnavailableError("the server is shutting down; try again elsewhere"))

    def _build(self) -> list[Engine]:
        loaded, manifest = self._loader.load(self._clock), self.package.manifest
        for graph in loaded.sessions:
            if (twin := manifest.graphs[graph].intervened_graph) is not None:
                self._intervened[graph] = OnFirstUse(
                    LateOpening(self._open_session, self.package, twin, loaded.settings).open
                )
        self._scheduler = Scheduler(loaded.settings, loaded.split.instances)
        self._provider = loaded.provider
        self._observer.loaded(loaded.split.instances, loaded.split.threads)
        shared = (self._scheduler, loaded.settings, self._clock, self._observer, self._intervened)
        return [engine_of(manifest, loaded.sessions, *shared) for _ in range(loaded.split.instances)]

    async def _load_twins(self, request: Request) -> None:
        """Have the graphs that a request intervenes in at hand, so that no engine has to wait for them.

        However many requests wait for a graph, one thread loads it; one that leaves leaves it to the others.
        """
        for graph, twin in self._intervened.items() if request.interventions else ():
            if concerns(self.package.manifest, graph, request.interventions) and not twin.loaded:
                await asyncio.shield(self._loading_of(graph, twin))

    def _loading_of(self, graph: str, twin: OnFirstUse) -> asyncio.Task[Session]:
        if graph not in self._loading:
            self._loading[graph] = loading = asyncio.create_task(asyncio.to_thread(twin.load))
            loading.add_done_callback(lambda _: self._loading.pop(graph))
        return self._loading[graph]

    def _submit(self, request: Request, listener: Callable[[Event | RegardError], None]) -> Ticket:
        def settled(outcome: Event | RegardError) -> None:
            if not isinstance(outcome, TokenEvent):
                self._settle(ticket)
            listener(outcome)

        ticket = Ticket(request, settled, self._clock())
        with self._changed:
            self._check_accepting()
            leaving = self._scheduler.submit(ticket)
            self._outstanding.add(ticket)
            self._most_at_once = max(self._most_at_once, len(self._outstanding))
            self._changed.notify()
        for displaced, error in leaving:
            displaced.finish(error)
        self._report()
        self._outbox.post()
        return ticket

    def _check_accepting(self) -> None:
        if not self._accepting:
            name = self.package.manifest.name
            raise UnavailableError(
                f"model {name!r} takes no requests now: it is loading, shutting down or broken; try again, or elsewhere"
            )

    def _abandon(self, ticket: Ticket) -> None:
        """Let go of a request whose caller no longer waits; if it has its place, the next step does."""
        if not ticket.done and self._scheduler.cancel(ticket):
            ticket.finish(RequestCancelledError("the request was cancelled"))
            self._report()
            self._outbox.post()

    def _settle(self, ticket: Ticket) -> None:
        with self._changed:
            self._outstanding.discard(ticket)

    def _end(self, error: RegardError) -> None:
        """Take no more requests, and end those that were taken with `error`."""
        with self._changed:
            self._accepting = False
            outstanding = list(self._outstanding)
        for ticket in outstanding:
            self._scheduler.cancel(ticket)
            ticket.finish(error)
        self._report()
        self._outbox.post()

    def _report(self) -> None:
        self._observer.queue(self._scheduler.waiting, self._scheduler.running_rows)

    def _work(self, engine: Engine) -> None:
        """Drive an instance until the worker stops, or until not even its device works any more."""
        name = self.package.manifest.name
        try:
            self._drive(engine)
        except BaseException:  # whatever ends the thread: nobody would be answered any more
            log.critical("an instance has failed for good: its model takes no more requests", model=name, exc_info=True)
            self._end(UnavailableError(f"model {name!r} has failed; try again elsewhere"))

    def _had_company(self) -> bool:
        """Whether callers were several at any time since an instance was last found idle, as this one is now."""
        most, self._most_at_once = self._most_at_once, len(self._outstanding)
        return most > 1

    def _drive(self, engine: Engine) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or engine.busy or self._scheduler.waiting > 0)
                if self._stopping:
                    break
                gathers = not engine.busy and self._had_company()
            if gathers:
                time.sleep(GATHER_S)
            try:
                engine.step()
            except Exception:
                log.exception("a step of the engine failed", model=self.package.manifest.name)
                engine.fail_all(EngineError("the engine failed on the running batch"))
                self._report()
            self._outbox.post()
        engine.fail_all(UnavailableError("the server is shutting down; try again elsewhere"))
        self._outbox.post()


class _Untaken:
    """What a stream has for its caller, who takes one event after the other; `held` is told of their weights' bytes."""

    def __init__(self, held: Callable[[int], None]) -> None:
        self._held = held
        self._num_bytes = 0
        self._open = True
        self._events: asyncio.Queue[Event | RegardError] = asyncio.Queue()

    def put(self, outcome: Event | RegardError) -> None:
        if not self._open:
            return
        try:
            self._hold(_tap_bytes(outcome))
        except RegardError as error:
            outcome = error
        self._events.put_nowait(outcome)

    async def get(self) -> Event | RegardError:
        return await self._events.get()

    def taken(self, outcome: Event | RegardError) -> None:
        self._hold(-_tap_bytes(outcome))

    def close(self) -> None:
        self._open = False
        self._hold(-self._num_bytes)

    def _hold(self, num_bytes: int) -> None:
        self._held(num_bytes)
        self._num_bytes += num_bytes


def _tap_bytes(outcome: Event | RegardError) -> int:
    return outcome.tap_bytes if isinstance(outcome, TokenEvent | Generation) else 0

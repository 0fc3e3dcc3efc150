"""A worker between asyncio and the engine's thread, on echo sessions."""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event as ThreadEvent

import numpy as np
import pytest
from structlog.testing import capture_logs

from regard.config import EngineSettings
from regard.engine.calibration import Contender
from regard.engine.instances import Sessions, graphs_of
from regard.engine.interventions import knocked_out
from regard.engine.observer import SilentObserver
from regard.engine.request import GenerateRequest, Generation, TokenEvent
from regard.engine.search.options import GenerationOptions
from regard.engine.session import Session
from regard.engine.source import Tokens, Unread
from regard.engine.splits import Split
from regard.errors import CallerStalledError, EngineError, PackageError, QueueFullError, UnavailableError
from regard.manifest import Manifest, Package, sha256_of
from regard.testing import END, FakeSession, echo_encoder, echo_package, echo_step, sum_package
from regard.worker import Worker

from .test_engine_generator import Breakable
from .test_engine_interventions import twin


class Gate(FakeSession):
    """A step that waits for the test before every run."""

    def __init__(self) -> None:
        super().__init__(echo_step()._compute, sorted(echo_step().inputs))
        self.open = ThreadEvent()
        self.open.set()
        self.reached = ThreadEvent()

    def run(self, feeds, fetches):  # type: ignore[no-untyped-def]
        """Wait until the gate is open, then step."""
        self.reached.set()
        assert self.open.wait(10)
        return super().run(feeds, fetches)


def request(*source: int, streaming: bool = False) -> GenerateRequest:
    """Return a request for the echo of `source`."""
    return GenerateRequest(Tokens(np.array([*source, END])), GenerationOptions(max_new_tokens=64), streaming=streaming)


@pytest.fixture
def gate() -> Iterator[Gate]:
    """A step that can be held."""
    gate = Gate()
    yield gate
    gate.open.set()


class Gauges(SilentObserver):
    """Keeps what it was told last of the queue: how many wait, and how many rows the others have."""

    last = (0, 0)

    def queue(self, waiting: int, rows: int) -> None:
        """Note both."""
        self.last = (waiting, rows)


@pytest.fixture
def gauges() -> Gauges:
    """What the worker tells of its queue."""
    return Gauges()


@pytest.fixture
async def worker(gate: Gate, gauges: Gauges) -> AsyncIterator[Worker]:
    """A started worker of four rows whose queue holds two."""

    def open_session(package: Package, graph: str, settings: EngineSettings) -> Session:
        return echo_encoder() if graph == "encoder" else gate

    worker = Worker(echo_package(), EngineSettings(max_rows=1, max_queue=2), gauges, open_session=open_session)
    worker.start()
    yield worker
    gate.open.set()
    worker.stop()


async def settled(gate: Gate, worker: Worker) -> None:
    """Return once a held step is under way."""
    await asyncio.to_thread(gate.reached.wait, 10)
    gate.reached.clear()


async def test_run_returns_the_result(worker: Worker) -> None:
    """The answer of the engine's thread comes back on the event loop."""
    result = await worker.run(request(5, 6))
    assert isinstance(result, Generation)
    assert result.best.token_ids == [5, 6, END]


async def test_stream_yields_tokens_and_then_the_result(worker: Worker) -> None:
    """Every token is an event of its own, in order; the last event is the result."""
    events = [event async for event in worker.stream(request(5, 6, streaming=True))]
    assert [event.token_id for event in events[:-1] if isinstance(event, TokenEvent)] == [5, 6, END]
    assert isinstance(events[-1], Generation)


async def test_a_step_wakes_the_event_loop_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many rows it gives a token to."""
    steps, wakes, loop = echo_step(), [], asyncio.get_running_loop()
    wake = loop.call_soon_threadsafe

    def counting(*arguments: object) -> object:
        wakes.append(threading.current_thread().name)
        return wake(*arguments)  # type: ignore[arg-type]

    def open_session(package: Package, graph: str, settings: EngineSettings) -> Session:
        return echo_encoder() if graph == "encoder" else steps

    async def tokens_of(source: list[int]) -> int:
        return len([event async for event in worker.stream(request(*source, streaming=True))])

    worker = Worker(echo_package(), EngineSettings(), SilentObserver(), open_session=open_session)
    worker.start()
    try:
        monkeypatch.setattr(loop, "call_soon_threadsafe", counting)
        heard = sum(await asyncio.gather(*(tokens_of([5, 6, 7, 8]) for _ in range(8))))
    finally:
        worker.stop()
    assert heard == 8 * 6
    assert set(wakes) == {"echo-0"}
    assert len(wakes) <= len(steps.calls) < heard


async def test_who_comes_together_is_taken_together(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle instance that had several callers holds no lock for a moment, so that the next batch has them all.

    One that had a single caller begins at once.
    """
    gathering, gathered, batches = ThreadEvent(), ThreadEvent(), list[int]()

    def gather(_: float) -> None:
        gathering.set()
        assert gathered.wait(10)

    class Counts(SilentObserver):
        def ran(self, graph: str, rows: int, tokens: int, seconds: float) -> None:
            if graph == "encoder":
                batches.append(rows)

    monkeypatch.setattr(time, "sleep", gather)
    sessions: dict[str, Session] = {"encoder": echo_encoder(), "step": gate}
    worker = Worker(echo_package(), EngineSettings(), Counts(), open_session=lambda _, graph, __: sessions[graph])
    worker.start()
    try:
        await worker.run(request(5))
        await worker.run(request(5))
        assert not gathering.is_set()
        gate.open.clear()
        several = [asyncio.create_task(worker.run(request(5))) for _ in range(2)]
        while worker.waiting + worker.running < 2:
            await asyncio.sleep(0)
        gathered.set()
        gate.open.set()
        await asyncio.gather(*several)
        for event in (gathering, gathered):
            event.clear()
        batches.clear()
        first = asyncio.create_task(worker.run(request(5, 6)))
        assert await asyncio.to_thread(gathering.wait, 10)
        second = asyncio.create_task(worker.run(request(7)))
        while worker.waiting < 2:
            await asyncio.sleep(0)
        gathered.set()
        await asyncio.gather(first, second)
    finally:
        gathered.set()
        worker.stop()
    assert batches == [2]


async def test_a_cancelled_run_leaves_the_batch(worker: Worker, gate: Gate) -> None:
    """After the cancelled call's step ends, the row belongs to the next request."""
    gate.open.clear()
    call = asyncio.create_task(worker.run(request(*[5] * 30)))
    await settled(gate, worker)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    gate.open.set()
    result = await worker.run(request(7))
    assert isinstance(result, Generation)
    assert result.best.token_ids == [7, END]
    assert len(gate.calls) <= 4


async def test_a_closed_stream_leaves_the_batch(worker: Worker, gate: Gate) -> None:
    """A caller that stops listening frees the row for the next request."""
    stream = worker.stream(request(*[5] * 30, streaming=True))
    await anext(stream)
    await stream.aclose()
    await worker.run(request(7))
    assert worker.running == 0


async def test_a_stream_tells_what_waits_for_its_caller() -> None:
    """The weights of every event count from when it is made until the next is asked for, and none once it is closed."""
    package = echo_package()
    tap = next(tap for tap in package.manifest.taps if tap.graph == "step")
    worker = Worker(
        package,
        EngineSettings(),
        SilentObserver(),
        open_session=lambda package, graph, settings: echo_encoder() if graph == "encoder" else echo_step(),
    )
    worker.start()
    told: list[int] = []
    try:
        asking = replace(request(5, 6, streaming=True), taps=frozenset({tap.name}))
        stream = worker.stream(asking, held=told.append)
        first = await anext(stream)
        while len(told) < 4:
            await asyncio.sleep(0.001)
        assert isinstance(first, TokenEvent)
        assert told[0] == first.taps[tap.name].nbytes > 0
        others = [event async for event in stream]
        assert isinstance(others[-1], Generation)
        assert others[-1].tap_bytes == others[-1].best.taps[tap.name].nbytes > 0
        assert sum(each for each in told if each > 0) == sum(event.tap_bytes for event in (first, *others))
        assert sum(told) == 0

        stream = worker.stream(asking, held=told.append)
        await anext(stream)
        await stream.aclose()
        assert sum(told) == 0

        def refuse(num_bytes: int) -> None:
            told.append(num_bytes)
            if sum(told) > first.taps[tap.name].nbytes:
                told.pop()
                raise CallerStalledError("too much")

        stream = worker.stream(asking, held=refuse)
        await anext(stream)
        while worker.running:
            await asyncio.sleep(0.001)
        with pytest.raises(CallerStalledError):
            [event async for event in stream]
        assert sum(told) == 0
    finally:
        await asyncio.to_thread(worker.stop)


async def test_a_full_queue_refuses_at_the_door(worker: Worker, gate: Gate) -> None:
    """One runs, two wait, the next is refused; all three are answered."""
    gate.open.clear()
    calls = [asyncio.create_task(worker.run(request(5)))]
    await settled(gate, worker)
    calls += [asyncio.create_task(worker.run(request(6 + index))) for index in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(QueueFullError):
        await worker.run(request(9))
    gate.open.set()
    assert len(await asyncio.gather(*calls)) == 3


async def test_what_is_expected_has_its_room(worker: Worker, gate: Gate) -> None:
    """One runs, one waits and one is being read: the next is refused, until the third is in or given up."""
    gate.open.clear()
    calls = [asyncio.create_task(worker.run(request(5)))]
    await settled(gate, worker)
    calls.append(asyncio.create_task(worker.run(request(6))))
    await asyncio.sleep(0)
    foreseen = replace(request(7), source=Unread(9))
    with worker.expecting(foreseen):
        with pytest.raises(QueueFullError), worker.expecting(foreseen):
            pass
        with pytest.raises(QueueFullError):
            worker.check_room(foreseen)
        assert worker.waiting == 1
    for _ in range(2):
        worker.check_room(foreseen)  # which holds nothing
    with worker.expecting(foreseen):
        pass
    calls.append(asyncio.create_task(worker.run(request(7))))
    gate.open.set()
    assert len(await asyncio.gather(*calls)) == 3


async def test_stopping_ends_what_still_runs(worker: Worker, gate: Gate) -> None:
    """A request cut off by `stop` hears that the server is going, and doesn't hang; no other is taken."""
    gate.open.clear()
    call = asyncio.create_task(worker.run(request(*[5] * 30)))
    await settled(gate, worker)
    stopped = asyncio.create_task(asyncio.to_thread(worker.stop))
    await asyncio.sleep(0.01)
    gate.open.set()
    await stopped
    with pytest.raises(UnavailableError):
        await call
    with pytest.raises(UnavailableError):
        await worker.run(request(7))
    with pytest.raises(UnavailableError), worker.expecting(request(7)):
        pass


async def test_an_unexpected_fault_ends_the_batch_and_not_the_thread(worker: Worker, gate: Gate) -> None:
    """A bug in a step is an error for its requests; the next request is answered."""
    gate._compute, sound = lambda _: {}["missing"], gate._compute
    with pytest.raises(EngineError):
        await worker.run(request(5))
    gate._compute = sound
    result = await worker.run(request(6))
    assert isinstance(result, Generation)


async def test_a_step_that_fails_leaves_no_rows_in_the_gauges(
    worker: Worker, gate: Gate, gauges: Gauges, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever ran in it has ended by the time that its caller hears of it, and is counted no more."""
    gate.open.clear()
    call = asyncio.create_task(worker.run(request(*[5] * 9)))
    await settled(gate, worker)
    monkeypatch.setattr(worker.engines[0], "_drop_overdue", lambda: {}["missing"])
    gate.open.set()
    with pytest.raises(EngineError):
        await call
    assert gauges.last == (0, 0)


async def test_who_leaves_the_queue_leaves_the_gauges(worker: Worker, gate: Gate, gauges: Gauges) -> None:
    """At once, and not when the step that runs has ended."""
    gate.open.clear()
    running = asyncio.create_task(worker.run(request(5)))
    await settled(gate, worker)
    waiting = asyncio.create_task(worker.run(request(6)))
    await asyncio.sleep(0)
    assert gauges.last == (1, 1)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert gauges.last == (0, 1)
    gate.open.set()
    await running


async def test_a_device_that_has_failed_ends_all_requests_and_the_model_s_readiness(
    worker: Worker, gate: Gate, gauges: Gauges
) -> None:
    """Who runs hears of the fault, and who waits or comes is sent elsewhere."""
    gate.memory = device = Breakable()
    gate.open.clear()
    running = asyncio.create_task(worker.run(request(*[5] * 9)))
    await settled(gate, worker)
    waiting = asyncio.create_task(worker.run(request(6)))
    await asyncio.sleep(0)
    device.broken, gate._compute = True, device.fail
    with capture_logs() as logs:
        gate.open.set()
        ended = await asyncio.gather(running, waiting, return_exceptions=True)
        await asyncio.to_thread(worker._threads[0].join)
    assert [type(error) for error in ended] == [EngineError, UnavailableError]
    assert gauges.last == (0, 0)
    assert not worker.ready
    assert logs[-1]["log_level"] == "critical"
    with pytest.raises(UnavailableError, match="broken; try again, or elsewhere"):
        await worker.run(request(7))


async def test_what_no_handler_catches_ends_all_requests_and_the_model_s_readiness(
    worker: Worker, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A panic of a library in Rust is no `Exception`; whoever waits is answered, and nobody else is let in."""

    class PanicException(BaseException):
        """As pyo3 raises it."""

    def panic() -> None:
        raise PanicException

    gate.open.clear()
    running = asyncio.create_task(worker.run(request(*[5] * 9)))
    await settled(gate, worker)
    monkeypatch.setattr(worker.engines[0], "_drop_overdue", panic)
    with capture_logs() as logs:
        gate.open.set()
        with pytest.raises(UnavailableError, match="has failed; try again elsewhere"):
            await running
        await asyncio.to_thread(worker._threads[0].join)
    assert not worker.ready
    assert logs[-1]["log_level"] == "critical"


async def test_one_thread_loads_a_graph_whoever_waits_for_it() -> None:
    """Requests that intervene for the first time leave threads to others, and one that leaves fails none of them."""
    package = echo_package()
    graphs = package.manifest.graphs
    encoder = graphs["encoder"].model_copy(update={"intervened_graph": "twin"})
    manifest = package.manifest.model_copy(update={"graphs": {**graphs, "encoder": encoder, "twin": encoder}})
    loading, load = ThreadEvent(), ThreadEvent()

    def open_session(package: Package, graph: str, settings: EngineSettings) -> Session:
        if graph == "twin":
            loading.set()
            assert load.wait(10)
            return twin(echo_encoder())
        return echo_encoder() if graph == "encoder" else echo_step()

    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
    worker = Worker(replace(package, manifest=manifest), EngineSettings(), SilentObserver(), open_session=open_session)
    worker.start()
    intervening = replace(request(5), interventions=knocked_out(manifest.taps[:1]))
    try:
        calls = [asyncio.create_task(worker.run(intervening)) for _ in range(4)]
        await asyncio.to_thread(loading.wait, 10)
        calls.pop(0).cancel()
        assert await asyncio.to_thread(lambda: "a thread is free") == "a thread is free"
        load.set()
        assert all(isinstance(result, Generation) for result in await asyncio.gather(*calls))
    finally:
        load.set()
        worker.stop()


@pytest.mark.parametrize(("altered", "refused"), [("weights.bin", True), ("twin.onnx", True), ("other.bin", False)])
async def test_a_graph_of_another_package_is_never_run(tmp_path: Path, altered: str, refused: bool) -> None:
    """Where a package was replaced before a graph was first needed, who needs it is refused, and others are served."""
    files = {"twin.onnx": b"a graph, and its weights.bin", "weights.bin": b"weights", "other.bin": b"another's weights"}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    package, opened = echo_package(), list[str]()
    graphs = package.manifest.graphs
    encoder = graphs["encoder"].model_copy(update={"file": "twin.onnx", "intervened_graph": "twin"})
    fields = {"graphs": {**graphs, "encoder": encoder, "twin": encoder}}
    fields["files"] = {name: sha256_of(tmp_path / name) for name in files}
    package = replace(package, directory=tmp_path, manifest=package.manifest.model_copy(update=fields))

    def open_session(package: Package, graph: str, settings: EngineSettings) -> Session:
        opened.append(graph)
        session = echo_step() if graph == "step" else echo_encoder()
        return twin(session) if graph == "twin" else session

    worker = Worker(package, EngineSettings(), SilentObserver(), open_session=open_session)
    worker.start()
    intervening = replace(request(5), interventions=knocked_out(package.manifest.taps[:1]))
    (tmp_path / "new").write_bytes(files[altered] + b" of another package")
    (tmp_path / "new").rename(tmp_path / altered)
    try:
        with capture_logs() as logs:
            answers = await asyncio.gather(*(worker.run(intervening) for _ in range(3)), return_exceptions=True)
            answers.append(*await asyncio.gather(worker.run(intervening), return_exceptions=True))
        assert isinstance(await worker.run(request(5)), Generation)
    finally:
        await asyncio.to_thread(worker.stop)

    assert [type(answer) for answer in answers] == [UnavailableError if refused else Generation] * 4
    assert [entry["log_level"] for entry in logs] == ["error"] * refused
    assert opened == ["encoder", "step", "twin"]
    for error in answers if refused else ():
        assert "package on disk is no longer the one that was loaded; restart the server" in str(error)
        assert str(tmp_path) not in str(error)


class Chosen:
    """A worker that is to choose its instances, of two splits of known figures, and what it loaded for that."""

    def __init__(self, provider: str, figures: dict[Split, float]) -> None:
        self.figures = figures
        self.opened: list[tuple[str, int | str, int]] = []
        self.lost: list[weakref.ref[FakeSession]] = []
        self.told: dict[str, int] = {}

        def open_session(package: Package, graph: str, settings: EngineSettings) -> Session:
            session = echo_encoder() if graph == "encoder" else echo_step()
            session.provider = provider
            self.opened.append((graph, settings.instances, settings.intra_op_threads))
            self.lost.append(weakref.ref(session))
            return session

        def contender(_: Manifest, sessions: Sessions, split: Split, *__: object) -> Contender:
            return Known(split, sessions, figures[split])

        settings = EngineSettings(instances="auto", intra_op_threads=2)
        self.worker = Worker(echo_package(), settings, self, open_session=open_session, contender=contender)

    def loaded(self, instances: int, threads: int) -> None:
        """Note what the worker tells its observer."""
        self.told = {"instances": instances, "threads": threads}

    def ran(self, graph: str, rows: int, tokens: int, seconds: float) -> None:
        """Note nothing."""

    def queue(self, waiting: int, rows: int) -> None:
        """Note nothing."""


@dataclass
class Known:
    """A split whose figure is known."""

    split: Split
    sessions: Sessions
    figure: float

    def serve(self) -> float:
        """Return it."""
        return self.figure


@pytest.mark.parametrize(
    ("figures", "split"),
    [
        ({Split(1, 2): 812.0, Split(2, 1): 1020.0}, Split(2, 1)),
        ({Split(1, 2): 1020.0, Split(2, 1): 812.0}, Split(1, 2)),
    ],
    ids=["two of one thread", "one of two threads"],
)
async def test_a_worker_takes_the_split_that_serves_most(figures: dict[Split, float], split: Split) -> None:
    """It serves with so many instances, lets the other split's sessions go, and tells both figures."""
    chosen = Chosen("CPUExecutionProvider", figures)
    with capture_logs() as logs:
        chosen.worker.start()
    try:
        result = await chosen.worker.run(request(5, 6))
        assert isinstance(result, Generation) and result.best.token_ids == [5, 6, END]
        assert chosen.worker.instances == split.instances
        assert chosen.told == {"instances": split.instances, "threads": split.threads}
        assert sorted(chosen.opened) == [(graph, *split) for graph in ("encoder", "step") for split in figures]
        kept = [opened[1:] for opened, session in zip(chosen.opened, chosen.lost, strict=True) if session()]
        assert kept == [split, split]
        (line,) = [entry for entry in logs if entry["event"] == "instances chosen"]
        assert (line["model"], line["instances"], line["intra_op_threads"]) == ("echo/1", *split)
        assert line["measured"] == ", ".join(f"{one} {figure:,.0f} tokens/s" for one, figure in figures.items())
    finally:
        chosen.worker.stop()


def test_a_gpu_has_one_instance() -> None:
    """Nothing else is loaded, nothing is measured, and the log says so."""
    chosen = Chosen("CUDAExecutionProvider", {Split(1, 2): 0.0})
    with capture_logs() as logs:
        chosen.worker.start()
    chosen.worker.stop()
    assert chosen.worker.instances == 1
    assert len(chosen.opened) == 2
    (line,) = [entry for entry in logs if entry["event"] == "instances chosen"]
    assert (line["instances"], line["measured"]) == (1, "nothing, on CUDAExecutionProvider")


def test_a_package_without_its_graphs_is_refused_by_name() -> None:
    """A manifest that names no step graph is one clear error at the start, not a fault at the first request."""
    package = echo_package()
    manifest = package.manifest.model_copy(update={"graphs": {"encoder": package.manifest.graphs["encoder"]}})
    worker = Worker(replace(package, manifest=manifest), EngineSettings(), SilentObserver())
    with pytest.raises(PackageError, match="package echo/1: its manifest has no graph 'step'"):
        worker.start()


def test_the_graph_that_reads_is_the_first() -> None:
    """Its provider is the model's, whatever the order of a set would be."""
    assert graphs_of(echo_package().manifest) == ("encoder", "step")
    assert graphs_of(sum_package().manifest) == ("prefill", "step")

    def open_session(package: Package, graph: str, settings: EngineSettings) -> Session:
        session = echo_encoder() if graph == "encoder" else echo_step()
        session.provider = graph
        return session

    worker = Worker(echo_package(), EngineSettings(), SilentObserver(), open_session=open_session)
    worker.start()
    worker.stop()
    assert worker.provider == "encoder"

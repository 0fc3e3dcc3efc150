"""Too many requests: whether throughput holds, how quickly the others are refused, and whether memory stays flat."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import cycle, islice

from load_tests.peers.course import SMALL_SHAPE, WORKSPACE, Course
from load_tests.peers.loads import OK, Load, closed, opened
from load_tests.peers.memory import GROWTH_BAR, growth, processor_s, resident_bytes
from load_tests.peers.refusing import Refusing
from load_tests.peers.results import Figure
from load_tests.peers.serving import Regard
from load_tests.peers.setting import Setting
from load_tests.peers.sources import random_sources, skewed_lengths
from load_tests.peers.throttling import REFUSED, throttling

TIMES = (1, 2, 4, 8, 16)
"""Offered loads, of the saturation."""
CALLERS = 128
SOURCES = 512
SEED = 23
HELD_BAR = 0.95
WARM_UP = 3_000
"""Requests after which the memory is watched: caches have grown to all rows and positions by then, every number of rows
has its binding, and the arenas of ONNX Runtime and of the C library have what the largest batches take."""
FEW_TOKENS = 12
"""The most that the requests ask for whose number matters, and not their size."""
MIB = 1 << 20


@dataclass(frozen=True)
class Pace:
    """How often and how long each load is put on, and how many requests the memory is watched over."""

    rounds: int
    saturating_s: float
    seconds: float
    requests: int
    every: int

    @property
    def unsteady_s(self) -> float:
        """The begin of each load, in which the short answers come and the long ones don't yet."""
        return self.seconds / 4


FULL, QUICK = Pace(3, 20.0, 20.0, 30_000, 250), Pace(1, 4.0, 3.0, 3_000, 250)


def measure(setting: Setting) -> list[Figure]:
    """Return what held under overload in the narrowest precision, and what memory the server of a small model took."""
    pace = QUICK if setting.quick else FULL
    return [*_overload(setting, pace), *_memory(setting, pace)]


def _overload(setting: Setting, pace: Pace) -> Iterator[Figure]:
    precision = setting.precisions[-1]
    title = f"overload, {precision}"
    sources = random_sources(setting.course.tokenizer, skewed_lengths(SOURCES, SEED), SEED)
    server = Regard(setting, precision, *setting.splits[-1])
    requests = server.requests(sources)
    peaks: list[float] = []
    loads: dict[int, list[Load]] = {times: [] for times in TIMES}
    throttled: dict[int, list[Load]] = {times: [] for times in TIMES}
    taken: dict[int, list[float]] = {times: [] for times in (0, *TIMES)}
    try:
        for number in range(pace.rounds):
            setting.say(f"{title}: round {number + 1} of {pace.rounds}")
            with _counted(taken[0]):
                peak = asyncio.run(_close(server, requests, pace.saturating_s)).answered_per_s(pace.saturating_s / 3)
            peaks.append(peak)
            for times in TIMES:
                offered = (server, requests, times * peak, pace.seconds, SEED + number)
                with _counted(taken[times]):
                    loads[times].append(asyncio.run(_open(*offered)))
                throttled[times].append(asyncio.run(_open(*offered, throttled=True)))
    finally:
        server.stop()
    yield Figure(f"{title}: saturation", "requests/s", peaks)
    yield Figure(f"{title}, saturation: cores that the callers took", "cores", taken[0])
    setting.say(f"{title}: what a refusal costs at the least")
    least_s = asyncio.run(_least_refusal_s(requests, TIMES[-1] * statistics.median(peaks), pace.seconds / 2))
    yield Figure(f"{title}: processor time of a server that does nothing but refuse, each", "ms", [1000 * least_s])
    for times in TIMES:
        held = [load.held(peak, pace.unsteady_s) for load, peak in zip(loads[times], peaks, strict=True)]
        name = f"{title}, {times} times saturation"
        yield Figure(f"{name}: throughput held", "ratio", held, HELD_BAR)
        yield Figure(f"{name}: cores that the callers took", "cores", taken[times])
        yield Figure(f"{name}: share refused", "ratio", [_share(load, REFUSED) for load in loads[times]])
        refusals_s = [load.outcomes[REFUSED] / load.seconds * least_s for load in loads[times]]
        left = [setting.cores - callers - each for callers, each in zip(taken[times], refusals_s, strict=True)]
        most = [min(1.0, mine / (setting.cores - callers)) for mine, callers in zip(left, taken[0], strict=True)]
        yield Figure(f"{name}: what the callers and such a server would leave", "ratio", most)
        yield Figure(
            f"{name}: throughput held, of that", "ratio", [one / bound for one, bound in zip(held, most, strict=True)]
        )
        frugal = [load.held(peak, pace.unsteady_s) for load, peak in zip(throttled[times], peaks, strict=True)]
        yield Figure(f"{name}, callers who throttle: throughput held", "ratio", frugal, HELD_BAR)
        yield Figure(
            f"{name}, callers who throttle: share refused",
            "ratio",
            [_share(load, REFUSED) for load in throttled[times]],
        )
        if refusing := [load for load in loads[times] if load.outcomes[REFUSED]]:
            for quantile in (0.5, 0.99):
                waits = [load.latency_ms(quantile, REFUSED) for load in refusing]
                yield Figure(f"{name}: p{100 * quantile:g} of the time to a refusal", "ms", waits)
    asked = [one for kind in (loads, throttled) for each in kind.values() for load in each for one in load.asked]
    setting.say(f"{title}: requests ended with {', '.join(sorted({one.outcome for one in asked}))}")
    others = sum(one.outcome not in (OK, REFUSED) for one in asked)
    yield Figure(f"{title}: neither answered nor refused", "requests", [others], 0.0, limits=True)


async def _least_refusal_s(requests: Sequence[tuple[bytes, int]], rate_per_s: float, seconds: float) -> float:
    """Return the processor time that a server takes for a call if it does nothing but refuse."""
    server = Refusing()
    try:
        async with server.line() as line:
            await opened(line.ask, requests, rate_per_s, seconds / 4, SEED)
            before_s = processor_s(server.pid)
            load = await opened(line.ask, requests, rate_per_s, seconds, SEED)
            return (processor_s(server.pid) - before_s) / len(load.asked)
    finally:
        server.stop()


def _memory(setting: Setting, pace: Pace) -> Iterator[Figure]:
    """Watch the memory of a server of the demonstration's model over many requests."""
    small = replace(setting, course=Course(SMALL_SHAPE, WORKSPACE / SMALL_SHAPE))
    precision = setting.precisions[-1]
    small.course.lay([precision], [], setting.say)
    lengths = [replace(length, target=min(length.target, FEW_TOKENS)) for length in skewed_lengths(SOURCES, SEED)]
    sources = random_sources(small.course.tokenizer, lengths, SEED)
    server = Regard(small, precision, *setting.splits[-1])
    requests = server.requests(sources)
    setting.say(f"overload: memory over {pace.requests:,} requests")
    try:
        resident, load = asyncio.run(_watch(server, requests, pace))
    finally:
        server.stop()
    title = f"overload, memory over {pace.requests:,} requests after {WARM_UP:,} others"
    yield Figure(f"{title}: resident", "MiB", [size / MIB for size in resident])
    yield Figure(f"{title}: growth", "ratio", [growth(resident)], GROWTH_BAR, limits=True)
    yield Figure(f"{title}: share answered", "ratio", [min(load)], 1.0)


async def _watch(server: Regard, requests: Sequence[tuple[bytes, int]], pace: Pace) -> tuple[list[int], list[float]]:
    """Return the memory after every so many requests, once it is warm, and the share of them that were answered."""
    resident, answered = [], []
    waiting = cycle(requests)
    async with server.line() as line:
        await closed(line.ask, islice(waiting, WARM_UP), CALLERS)
        for _ in range(pace.requests // pace.every):
            load = await closed(line.ask, islice(waiting, pace.every), CALLERS)
            resident.append(resident_bytes(server.pid))
            answered.append(_share(load, OK))
    return resident, answered


@contextmanager
def _counted(taken: list[float]) -> Iterator[None]:
    """Append how many cores this process, which is the callers, takes on average."""
    started, spent_s = time.perf_counter(), time.process_time()
    yield
    taken.append((time.process_time() - spent_s) / (time.perf_counter() - started))


async def _close(server: Regard, requests: Sequence[tuple[bytes, int]], seconds: float) -> Load:
    async with server.line() as line:
        return await closed(line.ask, cycle(requests), CALLERS, seconds)


async def _open(
    server: Regard,
    requests: Sequence[tuple[bytes, int]],
    rate_per_s: float,
    seconds: float,
    seed: int,
    *,
    throttled: bool = False,
) -> Load:
    async with server.line() as line:
        return await opened(throttling(line.ask) if throttled else line.ask, requests, rate_per_s, seconds, seed)


def _share(load: Load, outcome: str) -> float:
    return load.outcomes[outcome] / len(load.asked)

"""Tokens per second, everything due at once: Regard, CTranslate2 and Transformers, each in a process of its own.

Regard's engine is asked in the process of its server, as the service is, but without a call (`hosting.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from load_tests.peers.apart import Apart, Within
from load_tests.peers.contestants import Contestant
from load_tests.peers.contestants.ctranslate import CTranslate2
from load_tests.peers.contestants.eager import Transformers
from load_tests.peers.contestants.service import Service
from load_tests.peers.course import QUANTIZATIONS
from load_tests.peers.rates import Rates, best, ratios, rotated, tokens_per_second
from load_tests.peers.results import Figure
from load_tests.peers.setting import Setting
from load_tests.peers.sources import Length, Source, longest_first, random_sources, skewed_lengths, uniform_lengths

SETTLE_S = 0.25
"""Between two runs: threads of OpenMP spin so long for more work, on the cores of whoever comes next."""
SLOW_ROUNDS = 2
SEED = 11
MIB = 1 << 20


@dataclass(frozen=True)
class Race:
    """How many sources are translated, how many of them at a time, how widely and to what lengths."""

    name: str
    concurrency: int
    sources: int
    beams: int = 1
    skewed: bool = False

    def lengths(self) -> list[Length]:
        """Return the lengths of the sources and of what is to come of them."""
        return skewed_lengths(self.sources, SEED) if self.skewed else uniform_lengths(self.sources)


RACES = (
    Race("one stream", 1, 30),
    Race("8 at a time", 8, 96),
    Race("32 at a time", 32, 128),
    Race("64 at a time", 64, 192),
    Race("beam 4, 16 at a time", 16, 32, beams=4),
    Race("skewed, 32 at a time", 32, 128, skewed=True),
)
SLOW_RACES = ("one stream", "32 at a time")
"""Where Transformers takes part, in fp32 and in few rounds: it is slow."""
BARS = {
    ("int8", "one stream"): 2.5,
    ("int8", "32 at a time"): 1.2,
    ("int8", "64 at a time"): 1.2,
    ("int8", "beam 4, 16 at a time"): 1.1,
    ("fp32", "beam 4, 16 at a time"): 1.1,
    ("fp32", "32 at a time"): 1.1,
}
"""The least that the engine's rate may be over that of CTranslate2's best setting."""
SERVICE_BAR = 0.93


def measure(setting: Setting) -> list[Figure]:
    """Return every contestant's rate and peak memory, and the ratios between them, for each precision."""
    return [figure for precision in setting.precisions for figure in _measure(setting, precision)]


def _measure(setting: Setting, precision: str) -> Iterator[Figure]:
    races = [Race(race.name, race.concurrency, _count(race, setting), race.beams, race.skewed) for race in RACES]
    sources = {
        race.name: longest_first(random_sources(setting.course.tokenizer, race.lengths(), SEED)) for race in races
    }
    rates: dict[str, Rates] = {race.name: {} for race in races}
    with ExitStack() as stack:
        contestants = list(_enter(stack, _makers(setting, precision), sources["8 at a time"][:8]))
        for number in range(setting.rounds):
            setting.say(f"throughput, {precision}: round {number + 1} of {setting.rounds}")
            for race in races:
                for contestant in rotated(contestants, number):
                    slow = contestant.name == Transformers.name
                    if slow and (race.name not in SLOW_RACES or number >= SLOW_ROUNDS):
                        continue
                    time.sleep(SETTLE_S)
                    rate = tokens_per_second(contestant, sources[race.name], race.concurrency, race.beams)
                    rates[race.name].setdefault(contestant.name, []).append(rate)
        memory = {each.name: each.peak_bytes() for each in contestants if not isinstance(each, Within)}
    for race in races:
        title = f"throughput, {precision}, {race.name}"
        yield from (Figure(f"{title}: {name}", "tokens/s", told) for name, told in rates[race.name].items())
        yield from _ratios(title, rates[race.name], BARS.get((precision, race.name)))
    for name, peak_bytes in memory.items():
        yield Figure(f"throughput, {precision}: peak memory of {name}", "MiB", [peak_bytes / MIB])


def _makers(setting: Setting, precision: str) -> list[Callable[[], Contestant]]:
    """Return how to make each contestant, in every way to share the machine's cores."""
    course = setting.course
    makers: list[Callable[[], Contestant]] = []
    for instances, threads in setting.splits:
        makers += [
            partial(Service, course.models(precision), instances=instances, threads=threads),
            partial(
                CTranslate2,
                course.converted(precision),
                workers=instances,
                threads=threads,
                compute_type=QUANTIZATIONS[precision],
            ),
        ]
    if precision == "fp32":
        makers.append(partial(Transformers, course.checkpoint, threads=setting.cores))
    return makers


def _enter(
    stack: ExitStack, makers: Sequence[Callable[[], Contestant]], sources: Sequence[Source]
) -> Iterator[Contestant]:
    """Make every contestant and let it run once, unmeasured."""
    for make in makers:
        contestant = Apart(make)
        stack.callback(contestant.close)
        contestant.translate(sources, len(sources))
        if contestant.name.startswith("service"):
            yield Within(contestant)
        yield contestant


def _count(race: Race, setting: Setting) -> int:
    """Return how many sources are translated: in a rehearsal, as many as make one batch for each worker."""
    return (
        max(4, 2 * race.concurrency if race.concurrency < 32 else race.concurrency) if setting.quick else race.sources
    )


def _ratios(title: str, rates: Rates, bar: float | None) -> Iterator[Figure]:
    engine, service, peer = (best(rates, kind) for kind in ("engine", "service", "ctranslate2"))
    yield Figure(f"{title}: engine / ctranslate2", "ratio", ratios(engine, peer), bar)
    yield Figure(f"{title}: service / ctranslate2", "ratio", ratios(service, peer))
    yield Figure(f"{title}: service / engine", "ratio", ratios(service, engine), SERVICE_BAR)
    if Transformers.name in rates:
        yield Figure(f"{title}: engine / transformers", "ratio", ratios(engine, rates[Transformers.name]))

"""Latency under requests that come at random: Regard's server, and CTranslate2 behind one that batches statically."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle, product
from pathlib import Path
from statistics import median
from typing import TypeVar

from load_tests.peers.curves import Curve, Point, draw
from load_tests.peers.loads import OK, Load, closed, opened
from load_tests.peers.rates import rotated
from load_tests.peers.results import Figure
from load_tests.peers.serving import Peer, Regard
from load_tests.peers.setting import Setting
from load_tests.peers.sources import Source, random_sources, skewed_lengths

SHARES = (0.3, 0.5, 0.7, 0.9)
"""Offered loads, of the peer's saturation."""
QUANTILES = (0.5, 0.99)
BATCHES = (16, 32, 64)
WINDOWS_MS = (2.0, 10.0, 40.0)
FIRST_WINDOW_MS = 10.0
CALLERS = 128
"""Enough to fill every batch while the one before is translated."""
SOURCES = 512
SEED = 17
BAR, BAR_SHARE = 0.5, 0.7
PICTURES = Path("build/results")
Served = Regard | Peer
T = TypeVar("T")


@dataclass
class Server:
    """A server that runs, what it is asked, and what was measured of it at each share of the peer's saturation."""

    kind: str
    served: Served
    sources: Sequence[Source]
    loads: dict[float, list[Load]] = field(default_factory=lambda: defaultdict(list))

    def saturation(self, seconds: float) -> float:
        """Return how many requests a second it answers callers who are never fewer than fit."""

        async def ask() -> Load:
            async with self.served.line() as line:
                return await closed(line.ask, cycle(self.served.requests(self.sources)), CALLERS, seconds)

        return _whole(self.served.name, asyncio.run(ask())).answered_per_s(after_s=seconds / 3)

    def offer(self, rate_per_s: float, seconds: float, seed: int) -> Load:
        """Return what came of requests at random."""

        async def ask() -> Load:
            async with self.served.line() as line:
                return await opened(line.ask, self.served.requests(self.sources), rate_per_s, seconds, seed)

        return _whole(self.served.name, asyncio.run(ask()))


@dataclass(frozen=True)
class Pace:
    """How many seconds each kind of load lasts."""

    saturating_s: float
    choosing_s: float
    measuring_s: float


FULL, QUICK = Pace(12.0, 15.0, 12.0), Pace(4.0, 1.5, 1.5)


def measure(setting: Setting) -> list[Figure]:
    """Return saturations, latencies and their ratios, in the narrowest precision; draw the picture."""
    precision = setting.precisions[-1]
    pace = QUICK if setting.quick else FULL
    sources = random_sources(setting.course.tokenizer, skewed_lengths(SOURCES, SEED), SEED)
    setting.say("arrivals: how Regard is best set")
    regard_way, regard_saturation = _regards_way(setting, precision, sources, pace)
    setting.say("arrivals: how the peer is best set")
    peer_way, peer_saturation = _peers_way(setting, precision, sources, pace)
    with ExitStack() as stack:
        servers = [Server(kind, way(), sources) for kind, way in (("regard", regard_way), ("peer", peer_way))]
        for server in servers:
            stack.callback(server.served.stop)
            server.saturation(pace.saturating_s / 2)  # warms it up
        for number in range(setting.rounds):
            setting.say(f"arrivals: round {number + 1} of {setting.rounds}")
            for share in SHARES:
                for server in rotated(servers, number):
                    load = server.offer(share * peer_saturation, pace.measuring_s, SEED + number)
                    server.loads[share].append(load)
    PICTURES.mkdir(parents=True, exist_ok=True)
    picture = PICTURES / f"bench-peers{'-rehearsal' if setting.quick else ''}.svg"
    conditions = f"{setting.course.shape}, {precision}, {setting.cores} cores; " + "; ".join(
        f"{server.kind}: {server.served.name}" for server in servers
    )
    picture.write_text(draw([_curve(server, peer_saturation) for server in servers], conditions), "utf-8")
    setting.say(f"arrivals: {conditions}; drawn in {picture}")
    title = f"arrivals, {precision}"
    return [
        Figure(f"{title}: saturation of regard", "requests/s", [regard_saturation]),
        Figure(f"{title}: saturation of peer", "requests/s", [peer_saturation]),
        *(figure for server in servers for figure in _figures(title, server)),
        *_ratios(title, *servers),
    ]


def _regards_way(
    setting: Setting, precision: str, sources: Sequence[Source], pace: Pace
) -> tuple[Callable[[], Regard], float]:
    """Return how Regard's server answers most, and how many requests a second that are."""
    ways = [partial(Regard, setting, precision, *split) for split in setting.splits]
    return max(((way, _saturation(way, sources, pace)) for way in ways), key=lambda found: found[1])


def _peers_way(
    setting: Setting, precision: str, sources: Sequence[Source], pace: Pace
) -> tuple[Callable[[], Peer], float]:
    """Return how the peer answers most, with the window that makes the load of the bar wait least."""
    batches = BATCHES[-1:] if setting.quick else BATCHES
    ways = [partial(Peer, setting, precision, *split, most) for split in setting.splits for most in batches]
    found = [(way, _saturation(partial(way, FIRST_WINDOW_MS), sources, pace)) for way in ways]
    fastest, saturation = max(found, key=lambda each: each[1])

    def late_ms(window_ms: float) -> float:
        rate_per_s = BAR_SHARE * saturation
        load = _once(partial(fastest, window_ms), sources, lambda it: it.offer(rate_per_s, pace.choosing_s, SEED))
        return load.latency_ms(0.99)

    return partial(fastest, min(WINDOWS_MS, key=late_ms)), saturation


def _saturation(way: Callable[[], Served], sources: Sequence[Source], pace: Pace) -> float:
    return _once(way, sources, lambda server: server.saturation(pace.saturating_s))


def _once(way: Callable[[], Served], sources: Sequence[Source], measure: Callable[[Server], T]) -> T:
    """Return what is measured of a server that runs for this alone."""
    server = Server("", way(), sources)
    try:
        return measure(server)
    finally:
        server.served.stop()


def _whole(name: str, load: Load) -> Load:
    """Return the load. Raises `RuntimeError` if a request wasn't answered as it asked."""
    if load.outcomes.keys() - {OK}:
        raise RuntimeError(f"{name} didn't answer everything: {dict(load.outcomes)}")
    return load


def _figures(title: str, server: Server) -> Iterator[Figure]:
    for share, loads in server.loads.items():
        name = f"{title}, load {share:g}: {server.kind}"
        yield Figure(f"{name}, answers", "requests/s", [load.answered_per_s() for load in loads])
        for quantile in QUANTILES:
            latencies = [load.latency_ms(quantile) for load in loads]
            yield Figure(f"{name}, p{100 * quantile:g}", "ms", latencies)


def _ratios(title: str, regard: Server, peer: Server) -> Iterator[Figure]:
    """Return how long Regard's callers wait over the peer's."""
    for share, quantile in product(SHARES, QUANTILES):
        pairs = zip(regard.loads[share], peer.loads[share], strict=True)
        measured = [one.latency_ms(quantile) / other.latency_ms(quantile) for one, other in pairs]
        bar = BAR if (share, quantile) == (BAR_SHARE, 0.99) else None
        yield Figure(
            f"{title}, load {share:g}: regard / peer, p{100 * quantile:g}", "ratio", measured, bar, limits=True
        )


def _curve(server: Server, peer_saturation: float) -> Curve:
    points = [
        Point(
            offered_per_s=share * peer_saturation,
            answered_per_s=median(load.answered_per_s() for load in loads),
            p50_ms=median(load.latency_ms(0.5) for load in loads),
            p99_ms=median(load.latency_ms(0.99) for load in loads),
        )
        for share, loads in server.loads.items()
    ]
    return Curve(server.kind, points)

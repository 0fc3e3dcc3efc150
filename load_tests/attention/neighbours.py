"""How much longer those wait who ask for no attention, while one request in ten beside them does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from load_tests.attention.classification import texts
from load_tests.attention.service import EVERY_HEAD, Question, Service, classifier, classify, translate, translator
from load_tests.attention.setting import SEED, Setting, asking
from load_tests.peers.loads import OK
from load_tests.peers.results import Figure
from regard.manifest import load_package

TITLE = "neighbours"
SHARE, LOAD = 0.1, 0.5
"""The requests that ask, of all; and all of them, of those that saturate the service."""
QUANTILES = (0.5, 0.99)
BAR = 1.1
"""The most that the 99th percentile may be over what it is when nobody asks."""
SOURCES, CALLERS = 120, 64
SECONDS, REHEARSED_SECONDS = 6.0, 1.0
"""How long each load lasts."""
Latencies = dict[float, float]
"""Milliseconds, by quantile."""


@dataclass(frozen=True)
class Neighbourhood:
    """A service, and its requests when nobody asks for attention and when some do."""

    name: str
    service: Service
    plain: Sequence[Question]
    mixed: Sequence[Question]


def measure(setting: Setting) -> list[Figure]:
    """Return latencies of requests without attention, in both cases, and their ratios."""
    return [figure for open_one in (_translations, _classifications) for figure in _measure(setting, open_one)]


def _measure(setting: Setting, open_one: Callable[[Setting], Neighbourhood]) -> Iterator[Figure]:
    seconds = REHEARSED_SECONDS if setting.quick else SECONDS
    asked = open_one(setting)
    waits: dict[str, list[Latencies]] = {"nobody asks": [], "1 in 10 asks": []}
    with asked.service as service:
        rate_per_s = LOAD * service.rate(asked.plain, CALLERS)
        cases = list(zip(waits, (asked.plain, asked.mixed), strict=True))
        for number in range(setting.rounds):
            setting.say(f"{TITLE}, {asked.name}: round {number + 1} of {setting.rounds}")
            for case, questions in cases if number % 2 else reversed(cases):
                load = service.offer(questions, rate_per_s, seconds, SEED + number)
                waits[case].append({quantile: load.latency_ms(quantile, OK) for quantile in QUANTILES})
    title = f"{TITLE}, {asked.name}"
    for (case, measured), quantile in product(waits.items(), QUANTILES):
        yield Figure(f"{title}, {case}: p{100 * quantile:g}", "ms", [one[quantile] for one in measured])
    for quantile in QUANTILES:
        pairs = zip(*waits.values(), strict=True)
        growth = [mixed[quantile] / plain[quantile] for plain, mixed in pairs]
        bar = BAR if quantile == QUANTILES[-1] else None
        yield Figure(f"{title}, 1 in 10 asks / nobody asks: p{100 * quantile:g}", "ratio", growth, bar, limits=True)


def _translations(setting: Setting) -> Neighbourhood:
    """Return translations, and the maps of alignment heads."""
    sources, asked = setting.sources(SOURCES), asking(SHARE, SOURCES)
    plain, mixed = (
        [
            translate(source, attention=asks and some_ask, counted=not asks)
            for source, asks in zip(sources, asked, strict=True)
        ]
        for some_ask in (False, True)
    )
    service = translator(setting.translator.models("fp32"), setting.cores)
    return Neighbourhood("translations and alignment heads", service, plain, mixed)


def _classifications(setting: Setting) -> Neighbourhood:
    """Return classifications of one text each, and the maps of all layers and heads."""
    package = load_package(next((setting.classifier / "models").glob("*/1")))
    sources, asked = texts(setting, SOURCES), asking(SHARE, SOURCES)
    plain, mixed = (
        [
            classify(
                [source.text],
                EVERY_HEAD if asks and some_ask else None,
                len(package.manifest.taps),
                counted=not asks,
            )
            for source, asks in zip(sources, asked, strict=True)
        ]
        for some_ask in (False, True)
    )
    service = classifier(setting.classifier / "models", setting.cores)
    return Neighbourhood("classifications and all layers and heads", service, plain, mixed)

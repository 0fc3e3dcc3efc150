"""How much longer those wait who ask for no attention, while one request in ten beside them does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from load_tests.attention.classification import texts
from load_tests.attention.service import EVERY_HEAD, Question, Service, classifier, classify, translate, translator
from load_tests.attention.setting import SEED, Setting, asking
from load_tests.peers.loads import OK, Load
from load_tests.peers.rates import ratios
from load_tests.peers.results import Figure
from regard.manifest import load_package

TITLE = "neighbours"
SHARE, LOAD = 0.1, 0.5
"""The requests that ask, of all; and all of them, of those that saturate the service."""
MEDIAN, TAIL = 0.5, 0.99
BAR = 1.1
"""The most that the 99th percentile may be over what it is when nobody asks, within a round and of all together."""
SOURCES, CALLERS = 120, 64
SECONDS, REHEARSED_SECONDS = 10.0, 1.0
"""How long each load lasts."""


@dataclass(frozen=True)
class Neighbourhood:
    """A service, and its requests when nobody asks for attention and when some do."""

    name: str
    service: Service
    plain: Sequence[Question]
    mixed: Sequence[Question]


def measure(setting: Setting) -> list[Figure]:
    """Return latencies of requests without attention, in both cases, and their ratios.

    The 99th percentile of a round is close to its slowest request; that of all rounds together is decided by whichever
    rounds the machine stood still in. So both are told, and asked to hold.
    """
    return [figure for open_one in (_translations, _classifications) for figure in _measure(setting, open_one)]


def _measure(setting: Setting, open_one: Callable[[Setting], Neighbourhood]) -> Iterator[Figure]:
    seconds = REHEARSED_SECONDS if setting.quick else SECONDS
    asked = open_one(setting)
    loads: dict[str, list[Load]] = {"nobody asks": [], "1 in 10 asks": []}
    with asked.service as service:
        rate_per_s = LOAD * service.rate(asked.plain, CALLERS)
        cases = list(zip(loads, (asked.plain, asked.mixed), strict=True))
        for number in range(setting.rounds):
            setting.say(f"{TITLE}, {asked.name}: round {number + 1} of {setting.rounds}")
            for case, questions in cases if number % 2 else reversed(cases):
                loads[case].append(service.offer(questions, rate_per_s, seconds, SEED + number))
    title = f"{TITLE}, {asked.name}"
    both = f"{title}, 1 in 10 asks / nobody asks"
    for percentile, share, bar in (("median", MEDIAN, None), ("p99", TAIL, BAR)):
        plain, mixed = ([load.latency_ms(share, OK) for load in own] for own in loads.values())
        for case, measured in zip(loads, (plain, mixed), strict=True):
            yield Figure(f"{title}, {case}: {percentile}", "ms", measured)
        yield Figure(f"{both}: {percentile}", "ratio", ratios(mixed, plain), bar, limits=True)
    plain_tail, mixed_tail = (_together(own).latency_ms(TAIL, OK) for own in loads.values())
    yield Figure(f"{both}: p99 of all rounds", "ratio", [mixed_tail / plain_tail], BAR, limits=True)


def _together(loads: Sequence[Load]) -> Load:
    return Load(sum(load.seconds for load in loads), [one for load in loads for one in load.asked])


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

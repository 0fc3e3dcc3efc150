"""Translations with the map of the alignment heads, for no request, for some, for all; and peers with theirs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial

from load_tests.attention.service import Question, Service, translate, translator
from load_tests.attention.setting import Setting, asking
from load_tests.peers.apart import Apart
from load_tests.peers.contestants import Contestant
from load_tests.peers.contestants.ctranslate import CTranslate2
from load_tests.peers.contestants.eager import Transformers
from load_tests.peers.rates import ratios, tokens_per_second
from load_tests.peers.results import Figure
from load_tests.peers.sources import TARGET_TOKENS, Source, longest_first

TITLE = "translation"
SHARES = (0.0, 0.01, 0.1, 1.0)
BARS = {0.0: 0.99, 1.0: 0.92}
"""The least that is kept of the rate of the same service asked for no attention, by the share that asks."""
CONCURRENCY, SOURCES = 32, 96
PLAIN, WITHOUT_TAPS = "asked for none", "a package without taps"
EAGER, CTRANSLATE2 = "transformers, output_attentions", "ctranslate2, return_attention"


def measure(setting: Setting) -> list[Figure]:
    """Return tokens per second of every contestant, 32 requests at a time, and the ratios."""
    course = setting.translator
    sources = setting.sources(CONCURRENCY if setting.quick else SOURCES)
    with ExitStack() as stack:
        service, without_taps = (
            stack.enter_context(translator(course.models(kind), setting.cores))
            for kind in ("fp32", "fp32-without-taps")
        )
        runs: dict[str, Callable[[], float]] = {
            PLAIN: partial(_rate, service, _questions(sources, 0.0)),
            **{_asked(share): partial(_rate, service, _questions(sources, share)) for share in SHARES},
            WITHOUT_TAPS: partial(_rate, without_taps, _questions(sources, 0.0)),
        }
        for warm_up in (runs[PLAIN], runs[_asked(1.0)], runs[WITHOUT_TAPS]):
            warm_up()
        for name, make in _rivals(setting).items():
            rival = Apart(make)
            stack.callback(rival.close)
            rival.translate(sources[:CONCURRENCY], CONCURRENCY)
            runs[name] = partial(tokens_per_second, rival, longest_first(sources), CONCURRENCY)
        rates = setting.take_turns(TITLE, runs)
    return [
        *(Figure(f"{TITLE}, {name}", "tokens/s", measured) for name, measured in rates.items()),
        *(
            Figure(f"{TITLE}, {_asked(share)} / {PLAIN}", "ratio", ratios(rates[_asked(share)], rates[PLAIN]), bar)
            for share, bar in ((share, BARS.get(share)) for share in SHARES)
        ),
        Figure(f"{TITLE}, {PLAIN} / {WITHOUT_TAPS}", "ratio", ratios(rates[PLAIN], rates[WITHOUT_TAPS]), BARS[0.0]),
        *(
            Figure(f"{TITLE}, {_asked(1.0)} / {rival}", "ratio", ratios(rates[_asked(1.0)], rates[rival]))
            for rival in (EAGER, CTRANSLATE2)
        ),
    ]


def _asked(share: float) -> str:
    return f"asked for by {100 * share:g} %"


def _rate(service: Service, questions: Sequence[Question]) -> float:
    return TARGET_TOKENS * service.rate(questions, CONCURRENCY)


def _questions(sources: Sequence[Source], share: float) -> list[Question]:
    asked = asking(share, len(sources))
    return [translate(source, attention=attention) for source, attention in zip(sources, asked, strict=True)]


def _rivals(setting: Setting) -> dict[str, Callable[[], Contestant]]:
    course = setting.translator
    return {
        EAGER: partial(Transformers, course.checkpoint, threads=setting.cores, attention=True),
        CTRANSLATE2: partial(CTranslate2, course.converted("fp32"), workers=1, threads=setting.cores, attention=True),
    }

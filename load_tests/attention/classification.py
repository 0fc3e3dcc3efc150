"""Classifications of 8 texts of 128 tokens with the attention of every layer, as BERT's base shape makes them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from transformers import AutoModelForSequenceClassification

from load_tests.attention.service import EVERY_HEAD, MEAN, Question, Service, classifier, classify
from load_tests.attention.setting import SEED, Setting
from load_tests.peers.rates import ratios
from load_tests.peers.results import Figure
from load_tests.peers.sources import Length, Source, random_sources
from regard.manifest import load_package

TITLE = "classification"
TEXTS, TOKENS = 8, 128
REQUESTS = 3
"""Requests of a round, one after the other: whatever an answer takes, its caller waits for."""
PLAIN, MEANS, ALL = "asked for none", "mean over heads of all layers", "all layers and heads"
EAGER = "transformers, output_attentions"
BARS = {MEANS: 0.9, ALL: 0.6}
"""The least that is kept of the rate of the same service asked for no attention."""


def measure(setting: Setting) -> list[Figure]:
    """Return texts per second with every kind of map and without, and the ratios."""
    package = load_package(next((setting.classifier / "models").glob("*/1")))
    sources = texts(setting, TEXTS)
    layers = len(package.manifest.taps)
    with classifier(setting.classifier / "models", setting.cores) as service:
        questions = {
            name: classify([source.text for source in sources], attention, layers)
            for name, attention in ((PLAIN, None), (MEANS, MEAN), (ALL, EVERY_HEAD))
        }
        runs: dict[str, Callable[[], float]] = {
            name: partial(_rate, service, [question] * REQUESTS) for name, question in questions.items()
        }
        runs[EAGER] = _Eager(setting, sources).rate
        for run in runs.values():
            run()
        rates = setting.take_turns(TITLE, runs)
    return [
        *(Figure(f"{TITLE}, {name}", "texts/s", measured) for name, measured in rates.items()),
        *(
            Figure(f"{TITLE}, {name} / {PLAIN}", "ratio", ratios(rates[name], rates[PLAIN]), bar)
            for name, bar in BARS.items()
        ),
        Figure(f"{TITLE}, {ALL} / {EAGER}", "ratio", ratios(rates[ALL], rates[EAGER])),
    ]


def texts(setting: Setting, count: int) -> list[Source]:
    """Return texts of 128 tokens each."""
    return random_sources(setting.classifier / "checkpoint" / "tokenizer.json", [Length(TOKENS, 0)] * count, SEED)


def _rate(service: Service, questions: Sequence[Question]) -> float:
    return TEXTS * service.rate(questions, callers=1)


class _Eager:
    """Transformers in eager PyTorch, given the tokens of all texts at once, returning every layer and head."""

    def __init__(self, setting: Setting, sources: Sequence[Source]) -> None:
        torch.set_num_threads(setting.cores)
        self._model = AutoModelForSequenceClassification.from_pretrained(
            setting.classifier / "checkpoint", attn_implementation="eager"
        ).eval()
        self._input_ids = torch.tensor([source.token_ids for source in sources])

    def rate(self) -> float:
        started = time.perf_counter()
        with torch.inference_mode():
            for _ in range(REQUESTS):
                self._model(self._input_ids, output_attentions=True)
        return REQUESTS * len(self._input_ids) / (time.perf_counter() - started)

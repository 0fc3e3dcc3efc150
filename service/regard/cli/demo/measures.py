"""What the demonstration asks the server, and what it measures of the answers."""

from __future__ import annotations

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

import numpy as np
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from regard.cli.demo.inputs import Inputs
from regard.client import AsyncClient, Attention, AttentionOptions, Caption, Classification, Translation
from regard.client.requests import Kind

R = TypeVar("R", Translation, Caption, Classification)

DRAWN = AttentionOptions(reduction="mean", granularity="word")


@dataclass(frozen=True)
class Answers(Generic[R]):
    """The answers to all inputs of a task, each time asked at once.

    `plain` is without attention, `explained` with the weights of every layer and head, token by
    token, `drawn` with what is drawn, `reported` with what the page shows: every layer and head,
    word by word. Seconds are of wall clock.
    """

    plain: list[R]
    plain_s: float
    explained: list[R]
    explained_s: float
    drawn: list[R]
    reported: list[R]

    @property
    def attention(self) -> list[Attention]:
        """The attention of each input, complete."""
        return [answer.attention for answer in self.explained if answer.attention is not None]

    @property
    def row_sum_error(self) -> float:
        """The largest difference from 1 of the sum of any row of any map."""
        return max((row_sum_error(attention) for attention in self.attention), default=float("inf"))


@dataclass(frozen=True)
class AllAnswers:
    """The answers of every task."""

    translations: Answers[Translation]
    captions: Answers[Caption]
    classifications: Answers[Classification]

    @property
    def row_sum_error(self) -> float:
        """The largest of the tasks'."""
        return max(one.row_sum_error for one in (self.translations, self.captions, self.classifications))


async def ask_all(client: AsyncClient, inputs: Inputs) -> AllAnswers:
    """Ask for every input of every task, one task after the other."""
    return AllAnswers(
        await _ask(
            partial(client.translate, model=inputs.translator),
            [sentence.source for sentence in inputs.sentences],
            kinds=("cross", "self"),
        ),
        await _ask(
            partial(client.caption, model=inputs.captioner),
            [scene.image for scene in inputs.scenes],
            kinds=("cross", "self"),
        ),
        await _ask(
            partial(client.classify, model=inputs.classifier, top_k=3),
            [utterance.text for utterance in inputs.utterances],
            kinds=("self",),
        ),
    )


async def _ask(ask: Callable[..., Awaitable[R]], inputs: Sequence[object], kinds: Sequence[Kind]) -> Answers[R]:
    """Ask for all inputs at once, for each kind of answer."""
    await ask(inputs[0])  # the first run of a session allocates
    plain, plain_s = await _at_once(map(ask, inputs))
    explained, explained_s = await _at_once(map(partial(ask, attention=AttentionOptions(kinds=kinds)), inputs))
    drawn, _ = await _at_once(map(partial(ask, attention=DRAWN), inputs))
    by_word = AttentionOptions(kinds=kinds, granularity="word")
    reported, _ = await _at_once(map(partial(ask, attention=by_word), inputs))
    return Answers(plain, plain_s, explained, explained_s, drawn, reported)


def row_sum_error(attention: Attention) -> float:
    """Return the largest difference from 1 of the sum of any row; infinite for a weight that is not a number."""
    sums = [one.weights.sum(axis=-1, dtype=np.float64) for one in attention.maps]
    worst = max((float(np.abs(each - 1).max()) for each in sums), default=float("inf"))
    return worst if np.isfinite(worst) else float("inf")


def shapes(attention: Attention) -> dict[str, list[int]]:
    """Return the shape [heads, queries, keys] of every map, by its stack, kind and layer."""
    return {f"{one.stack}.{one.kind}.{one.layer}": list(one.weights.shape) for one in attention.maps}


def batch_sizes(metrics: str, model: str) -> dict[str, dict[str, object]]:
    """Return, for each graph of a model, how many runs a server's metrics tell of, and of how many rows."""
    samples: dict[str, list[Sample]] = defaultdict(list)
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples if family.name == "regard_run_rows" else ():
            if sample.labels["model"] == model:
                samples[sample.labels["graph"]].append(sample)
    return {graph: _sizes(samples[graph]) for graph in sorted(samples)}


def _sizes(samples: Sequence[Sample]) -> dict[str, object]:
    """Turn one histogram, whose buckets are cumulative, into runs by the number of their rows."""
    values = {sample.name.removeprefix("regard_run_rows_"): sample.value for sample in samples}
    runs_by_rows: dict[str, int] = {}
    counted, first = 0.0, 1
    for bound, count in sorted((float(s.labels["le"]), s.value) for s in samples if "le" in s.labels):
        if count > counted:
            runs_by_rows[_range(first, bound)] = int(count - counted)
        if math.isfinite(bound):
            counted, first = count, int(bound) + 1
    return {
        "runs": int(values["count"]),
        "mean_rows": round(values["sum"] / max(values["count"], 1), 2),
        "runs_by_rows": runs_by_rows,
    }


def _range(first: int, last: float) -> str:
    if math.isinf(last):
        return f"{first} or more"
    return str(first) if first == last else f"{first}-{last:.0f}"


async def _at_once(calls: Iterable[Awaitable[R]]) -> tuple[list[R], float]:
    started = time.perf_counter()
    answers: Sequence[R] = await asyncio.gather(*calls)
    return list(answers), time.perf_counter() - started

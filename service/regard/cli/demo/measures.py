"""What the demonstration asks the server, and what it measures of the answers."""

from __future__ import annotations

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from regard.cli.demo.inputs import Inputs
from regard.client import AsyncClient, Attention, AttentionOptions, Classification, Translation

R = TypeVar("R", Translation, Classification)

EVERY_CROSS_AND_SELF = AttentionOptions(kinds=("cross", "self"))
EVERY_SELF = AttentionOptions(kinds=("self",))
DRAWN = AttentionOptions(reduction="mean", granularity="word")
CROSS_AND_SELF_BY_WORD = AttentionOptions(kinds=("cross", "self"), granularity="word")
SELF_BY_WORD = AttentionOptions(kinds=("self",), granularity="word")


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


async def translate_all(client: AsyncClient, inputs: Inputs) -> Answers[Translation]:
    """Translate every sentence, all at once, for each kind of answer."""
    sources, model = [sentence.source for sentence in inputs.sentences], inputs.translator
    await client.translate(sources[0], model=model)  # the first run of a session allocates
    plain, plain_s = await _at_once(client.translate(text, model=model) for text in sources)
    explained, explained_s = await _at_once(
        client.translate(text, model=model, attention=EVERY_CROSS_AND_SELF) for text in sources
    )
    drawn, _ = await _at_once(client.translate(text, model=model, attention=DRAWN) for text in sources)
    reported, _ = await _at_once(
        client.translate(text, model=model, attention=CROSS_AND_SELF_BY_WORD) for text in sources
    )
    return Answers(plain, plain_s, explained, explained_s, drawn, reported)


async def classify_all(client: AsyncClient, inputs: Inputs) -> Answers[Classification]:
    """Classify every utterance, all at once, for each kind of answer."""
    texts, model = [utterance.text for utterance in inputs.utterances], inputs.classifier
    await client.classify(texts[0], model=model)
    plain, plain_s = await _at_once(client.classify(text, model=model, top_k=3) for text in texts)
    explained, explained_s = await _at_once(
        client.classify(text, model=model, top_k=3, attention=EVERY_SELF) for text in texts
    )
    drawn, _ = await _at_once(client.classify(text, model=model, top_k=3, attention=DRAWN) for text in texts)
    reported, _ = await _at_once(client.classify(text, model=model, top_k=5, attention=SELF_BY_WORD) for text in texts)
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

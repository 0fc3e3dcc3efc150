"""A server of one package, asked with messages that were made beforehand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from load_tests.peers.loads import OK, Line, Load, closed, opened
from load_tests.peers.server import Server
from load_tests.peers.sources import Source
from regard.v1 import attention_pb2, classification_pb2, generation_pb2, translation_pb2

ATTENTION_BYTES = 128 << 20
"""What a response may hold: 8 texts of 128 tokens come to 72 MiB in all layers and heads of BERT."""
BESIDE = "OK, not counted"
WRONG = "WRONG ANSWER"
ALIGNMENT_HEADS = attention_pb2.AttentionOptions(reduction=attention_pb2.ATTENTION_REDUCTION_ALIGNMENT_HEADS)
MEAN = attention_pb2.AttentionOptions(reduction=attention_pb2.ATTENTION_REDUCTION_MEAN)
EVERY_HEAD = attention_pb2.AttentionOptions()


@dataclass(frozen=True)
class Answer:
    """What a request expects: so many tokens of a translation, or inputs classified; and how many maps of each.

    One that isn't `counted` is beside the point of a measurement.
    """

    size: int
    maps: int
    counted: bool = True


Question = tuple[bytes, Answer]


class Service:
    """`regard serve`, and a connection to it."""

    def __init__(self, models: Path, threads: int, method: str, check: Callable[[Answer, bytes], str]) -> None:
        self._server = Server(
            models, instances=1, threads=threads, settings=["--max-attention-bytes", str(ATTENTION_BYTES)]
        )
        self._line = partial(Line, self._server.target, f"/regard.v1.{method}", check)

    def rate(self, questions: Sequence[Question], callers: int) -> float:
        """Return how many requests a second are answered to callers who never wait. Raises as `run` does."""
        return len(questions) / self.run(questions, callers).seconds

    def run(self, questions: Sequence[Question], callers: int) -> Load:
        """Let `callers` ask everything. Raises `RuntimeError` if an answer isn't what was asked for."""

        async def ask() -> Load:
            async with self._line() as line:
                return await closed(line.ask, questions, callers)

        return _whole(asyncio.run(ask()))

    def offer(self, questions: Sequence[Question], rate_per_s: float, seconds: float, seed: int) -> Load:
        """Send requests at random, in order. Raises as `run` does."""

        async def ask() -> Load:
            async with self._line() as line:
                return await opened(line.ask, questions, rate_per_s, seconds, seed)

        return _whole(asyncio.run(ask()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop()


def translator(models: Path, threads: int) -> Service:
    """Return a server of a translator."""
    return Service(models, threads, "TranslationService/Translate", _check_translation)


def classifier(models: Path, threads: int) -> Service:
    """Return a server of a classifier."""
    return Service(models, threads, "ClassificationService/Classify", _check_classification)


def translate(source: Source, *, attention: bool, counted: bool = True) -> Question:
    """Return a request for one translation, with the map of its alignment heads if `attention`."""
    message = translation_pb2.TranslateRequest(
        texts=[source.text],
        generation=generation_pb2.GenerationOptions(max_new_tokens=source.target_tokens),
        attention=ALIGNMENT_HEADS if attention else None,
    )
    return message.SerializeToString(), Answer(source.target_tokens, int(attention), counted)


def classify(
    texts: Sequence[str], attention: attention_pb2.AttentionOptions | None, layers: int, *, counted: bool = True
) -> Question:
    """Return a request that classifies texts, with maps of all `layers` if it asks for `attention`."""
    message = classification_pb2.ClassifyRequest(
        inputs=[classification_pb2.ClassificationInput(text=text) for text in texts], attention=attention
    )
    return message.SerializeToString(), Answer(len(texts), layers if attention else 0, counted)


def _check_translation(expected: Answer, answer: bytes) -> str:
    result = translation_pb2.TranslateResponse.FromString(answer).results[0].translation
    right = (result.target_tokens, len(result.attention.maps)) == (expected.size, expected.maps)
    return _outcome(expected, right=right)


def _check_classification(expected: Answer, answer: bytes) -> str:
    results = classification_pb2.ClassifyResponse.FromString(answer).results
    right = len(results) == expected.size and all(
        one.HasField("classification") and len(one.classification.attention.maps) == expected.maps for one in results
    )
    return _outcome(expected, right=right)


def _outcome(expected: Answer, *, right: bool) -> str:
    return WRONG if not right else OK if expected.counted else BESIDE


def _whole(load: Load) -> Load:
    if others := load.outcomes.keys() - {OK, BESIDE}:
        raise RuntimeError(f"not every answer is what was asked for: {', '.join(sorted(others))}")
    return load

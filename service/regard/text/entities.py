"""Entities: what the classes of a text's tokens make up, as Transformers' token classification pipeline has it.

https://github.com/huggingface/transformers/blob/main/src/transformers/pipelines/token_classification.py
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from regard.text.segment import Segment

Probabilities = npt.NDArray[np.float64]


class Aggregation(StrEnum):
    """How tokens that disagree within a word are put together; `NONE` makes no entities at all."""

    NONE = "none"
    SIMPLE = "simple"
    FIRST = "first"
    AVERAGE = "average"
    MAX = "max"


@dataclass(frozen=True, slots=True)
class Entity:
    """A run of tokens of one class; `start` and `end` (exclusive) are in code points."""

    label: str
    score: float
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class ClassifiedToken:
    """A token, the probabilities [C] of its classes, and whether it goes on with the word before it."""

    segment: Segment
    probabilities: Probabilities
    continues: bool


@dataclass(frozen=True, slots=True)
class _Unit:
    """A token or a word, with its class."""

    label: str
    score: float
    start: int
    end: int

    @property
    def kind(self) -> str:
        """The class without its tag; a class without one is its own kind."""
        return self.label[2:] if self.label.startswith(("B-", "I-")) else self.label


def entities_of(
    tokens: Sequence[ClassifiedToken], labels: Sequence[str], aggregation: Aggregation, ignored: Collection[str]
) -> list[Entity]:
    """Return the entities of `tokens`, which are all that are not special, but for those called as `ignored` says."""
    if aggregation is Aggregation.NONE:
        return []
    words = [[token] for token in tokens] if aggregation is Aggregation.SIMPLE else list(_words(tokens))
    units = [_unit(word, labels, aggregation) for word in words]
    return [entity for entity in map(_entity, _runs(units)) if entity.label not in ignored]


def _words(tokens: Sequence[ClassifiedToken]) -> Iterator[list[ClassifiedToken]]:
    word: list[ClassifiedToken] = []
    for token in tokens:
        if word and not token.continues:
            yield word
            word = []
        word.append(token)
    if word:
        yield word


def _unit(word: Sequence[ClassifiedToken], labels: Sequence[str], aggregation: Aggregation) -> _Unit:
    if aggregation is Aggregation.AVERAGE:
        probabilities = np.mean([token.probabilities for token in word], axis=0)
    elif aggregation is Aggregation.MAX:
        probabilities = max(word, key=lambda token: float(token.probabilities.max())).probabilities
    else:
        probabilities = word[0].probabilities
    best = int(probabilities.argmax())
    return _Unit(labels[best], float(probabilities[best]), word[0].segment.start, word[-1].segment.end)


def _runs(units: Sequence[_Unit]) -> Iterator[list[_Unit]]:
    run: list[_Unit] = []
    for unit in units:
        if run and (unit.kind != run[-1].kind or unit.label.startswith("B-")):
            yield run
            run = []
        run.append(unit)
    if run:
        yield run


def _entity(run: Sequence[_Unit]) -> Entity:
    label = run[0].label.split("-", 1)[-1]
    return Entity(label, float(np.mean([unit.score for unit in run])), run[0].start, run[-1].end)

"""What is read off an input: classes, entities, answers and likenesses."""

from __future__ import annotations

from dataclasses import dataclass

from regard.answers.attention import Attention
from regard.answers.provenance import ModelVersion, Timing
from regard.answers.shown import Shown


@dataclass(frozen=True, slots=True)
class ClassProbability:
    """A class, its index in the model's output, and its probability, from 0 to 1."""

    label: str
    index: int
    probability: float


@dataclass(frozen=True, slots=True)
class Classification(Shown):
    """The likeliest classes of one text, in descending order of probability."""

    classes: tuple[ClassProbability, ...]
    out_of_scope: bool
    source_tokens: int
    truncated: bool
    attention: Attention | None
    timing: Timing
    model: ModelVersion


@dataclass(frozen=True, slots=True)
class ClassifiedToken:
    """A token of a text, its place on an axis of tokens, and its likeliest classes; `end` is exclusive."""

    token: str
    token_id: int
    index: int
    start: int
    end: int
    classes: tuple[ClassProbability, ...]


@dataclass(frozen=True, slots=True)
class Entity:
    """A part of a text whose tokens are of one class; `end` is exclusive."""

    label: str
    score: float
    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class TokenClassification(Shown):
    """The classes of every token of one text but the special ones, and the entities that they make up."""

    tokens: tuple[ClassifiedToken, ...]
    entities: tuple[Entity, ...]
    source_tokens: int
    truncated: bool
    attention: Attention | None
    timing: Timing
    model: ModelVersion


@dataclass(frozen=True, slots=True)
class AnswerSpan:
    """A part of a context that may be the answer; empty if it is that there is none. `end` is exclusive."""

    text: str
    score: float
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class AnsweredQuestion(Shown):
    """The best answers to one question, in descending order of score, from a context read in `windows`.

    `null_score` is that of there being no answer. Attention is that of the window of the best answer.
    """

    answers: tuple[AnswerSpan, ...]
    null_score: float
    windows: int
    source_tokens: int
    attention: Attention | None
    timing: Timing
    model: ModelVersion

    @property
    def best(self) -> AnswerSpan | None:
        """The best answer; None if no part of the context can be one."""
        return self.answers[0] if self.answers else None


@dataclass(frozen=True, slots=True)
class TextScore:
    """How alike an image is to the text `text_index` of its comparison."""

    text_index: int
    logit: float
    probability: float


@dataclass(frozen=True, slots=True)
class ComparedImage:
    """One image beside the texts; `embedding` is empty unless it was asked for."""

    scores: tuple[TextScore, ...]
    embedding: tuple[float, ...]
    attention: Attention | None
    timing: Timing

    @property
    def best(self) -> TextScore | None:
        """The text that is most alike; None if there is none to compare with."""
        return max(self.scores, key=lambda score: score.logit, default=None)


@dataclass(frozen=True, slots=True)
class ComparedText:
    """One text; `embedding` is empty unless it was asked for."""

    source_tokens: int
    truncated: bool
    embedding: tuple[float, ...]
    attention: Attention | None
    timing: Timing

"""What the engine is asked for and what it answers: plain data, in tokens and tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from regard.engine.interventions import Interventions
from regard.engine.search.options import GenerationOptions
from regard.engine.source import Source

FloatArray = npt.NDArray[np.float32]


class Priority(IntEnum):
    """Whose turn comes first, the least number's."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


class TapBudget(NamedTuple):
    """How many bytes of some taps, by their names, the rows of a request may hold in all while its output is made."""

    taps: frozenset[str]
    max_bytes: int
    fields: tuple[str, ...] = ("attention",)
    """The fields of the caller's request that ask for them."""


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """Generate from `source`, as `options` ask.

    `taps` are names of `TapSpec`s; `deadline` is a time of the engine's clock, in seconds;
    `streaming` asks for a `TokenEvent` for each token, beside the result. Requests of one `client`,
    whatever names it, take turns with those of others. `interventions` are by names of `TapSpec`s, too. A request
    whose output has more than its `tap_budget` ends with `InvalidInputError`.
    """

    source: Source
    options: GenerationOptions
    taps: frozenset[str] = frozenset()
    deadline: float | None = None
    streaming: bool = False
    client: str = ""
    priority: Priority = Priority.NORMAL
    interventions: Interventions = field(default_factory=dict)
    tap_budget: TapBudget | None = None


@dataclass(frozen=True, slots=True)
class ClassifyRequest:
    """Answer `source` in one step. Everything else is as in `GenerateRequest`."""

    source: Source
    taps: frozenset[str] = frozenset()
    deadline: float | None = None
    client: str = ""
    priority: Priority = Priority.NORMAL
    interventions: Interventions = field(default_factory=dict)


Request = GenerateRequest | ClassifyRequest


class FinishReason(StrEnum):
    """Why a generation ended."""

    END_OF_SENTENCE = "end_of_sentence"
    LENGTH = "length"
    STOP_STRING = "stop_string"


@dataclass(frozen=True, slots=True)
class Phases:
    """Where a request's time went, in seconds."""

    queue_s: float
    encode_s: float
    decode_s: float = 0.0


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """One token of the output and the natural logarithm of its probability; `last` is the last one.

    The logarithm is not a number if the request wants no scores. `taps` has what the step that made it gave of the
    taps asked for, by name: [H, keys].
    """

    token_id: int
    log_probability: float
    last: bool = False
    taps: Mapping[str, FloatArray] = field(default_factory=dict)

    @property
    def tap_bytes(self) -> int:
        """The bytes of its weights."""
        return sum(weights.nbytes for weights in self.taps.values())


class TokenLogprob(NamedTuple):
    """A token that could have come, and the natural logarithm of its probability."""

    token_id: int
    log_probability: float


@dataclass(frozen=True, slots=True)
class GeneratedSequence:
    """One sequence of a finished generation.

    `token_ids` holds the prefix and every generated token, the end of the sentence included;
    `log_probabilities` is 0 for a token that was forced. `score` is what beam search ranks by, and
    otherwise the sum of the log-probabilities. Neither is a number if the request wants no scores.
    `taps` maps a tap's name to its weights: [H, S, S] for the encoder's and the prompt's, [H, T, S] for
    cross and [H, T, C + T] for the decoder's self-attention, where query t is the step that produced
    token t and key C + t of the last is that step's input; later keys are 0. The C keys before are the
    positions that a prefill gave, if there was one. `top_logprobs` holds the likeliest tokens of each of
    the T positions, if they were asked for.
    """

    token_ids: list[int]
    log_probabilities: list[float]
    score: float
    finish_reason: FinishReason
    taps: dict[str, FloatArray] = field(default_factory=dict)
    top_logprobs: list[list[TokenLogprob]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Generation:
    """A finished generation: at least one sequence, the best first."""

    sequences: list[GeneratedSequence]
    phases: Phases

    @property
    def best(self) -> GeneratedSequence:
        """The first sequence."""
        return self.sequences[0]

    @property
    def tap_bytes(self) -> int:
        """The bytes of its weights; those of the encoder, which its sequences share, with each of them."""
        return sum(weights.nbytes for sequence in self.sequences for weights in sequence.taps.values())


@dataclass(frozen=True, slots=True)
class Classification:
    """What a graph gives of a request, and the taps asked for, each [H, S, S].

    `output` is logits [C], those of every token [S, C], or an embedding [E].
    """

    output: FloatArray
    phases: Phases
    taps: dict[str, FloatArray] = field(default_factory=dict)


Event = TokenEvent | Generation | Classification

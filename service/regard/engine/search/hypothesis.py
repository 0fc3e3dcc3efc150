"""A sequence on its way: its tokens and what is kept of every step that made one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from regard.engine.request import FinishReason, FloatArray, GeneratedSequence, TokenLogprob


@dataclass(slots=True)
class Hypothesis:
    """One row's sequence. `score` is what sequences of one request are ranked by.

    `step_taps` holds, for every tap that was asked for, one array of weights for each token;
    `top_logprobs` the likeliest tokens at each position, if they were asked for.
    """

    token_ids: list[int] = field(default_factory=list)
    log_probabilities: list[float] = field(default_factory=list)
    score: float = 0.0
    finish_reason: FinishReason | None = None
    step_taps: dict[str, list[FloatArray]] = field(default_factory=dict)
    top_logprobs: list[list[TokenLogprob]] = field(default_factory=list)

    def extend(self, token_id: int, log_probability: float) -> None:
        """Append a token."""
        self.token_ids.append(token_id)
        self.log_probabilities.append(log_probability)

    def fork(self) -> Hypothesis:
        """Return a copy that goes its own way from here."""
        return Hypothesis(
            list(self.token_ids),
            list(self.log_probabilities),
            self.score,
            self.finish_reason,
            {name: list(queries) for name, queries in self.step_taps.items()},
            list(self.top_logprobs),
        )

    def sequence(self, encoder_taps: Mapping[str, FloatArray], *, scored: bool = True) -> GeneratedSequence:
        """Return what has come of it, once it has ended; what was kept of steps beyond its end is left out.

        Unless it is `scored`, its scores are no numbers: what it has for them need not be any.
        """
        assert self.finish_reason is not None
        length = len(self.token_ids)
        taps = {name: _stack(queries[:length]) for name, queries in self.step_taps.items()}
        return GeneratedSequence(
            self.token_ids,
            self.log_probabilities if scored else [math.nan] * length,
            self.score if scored else math.nan,
            self.finish_reason,
            {**encoder_taps, **taps},
            self.top_logprobs[:length],
        )


def _stack(queries: list[FloatArray]) -> FloatArray:
    """Put queries [H, keys], of equal or growing numbers of keys, into [H, T, most keys]."""
    stacked = np.zeros((queries[0].shape[0], len(queries), queries[-1].shape[1]), np.float32)
    for at, query in enumerate(queries):
        stacked[:, at, : query.shape[1]] = query
    return stacked

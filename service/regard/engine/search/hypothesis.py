"""A sequence on its way: its tokens and what is kept of every step that made one."""

from __future__ import annotations

from dataclasses import dataclass, field

from regard.engine.request import FinishReason, FloatArray, TokenLogprob


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

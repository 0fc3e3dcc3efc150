"""A given output, scored: what the model would have said to each of its tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence

from regard.engine.request import FinishReason
from regard.engine.search.hypothesis import Hypothesis
from regard.engine.search.shortlist import StepScores


class Scored:
    """One request's only sequence, which takes the tokens that it is given, each with the model's own log-probability.

    Its tokens are fed one by one, as those of a search are, so that its rows run beside any others.
    """

    copies: tuple[()] = ()
    needs_logits = True
    best_needed = 1

    def __init__(self, target_token_ids: Sequence[int]) -> None:
        self._target = target_token_ids
        self.hypotheses = [Hypothesis()]
        self.results = self.hypotheses

    @property
    def done(self) -> bool:
        """Whether every token has its score."""
        return self.hypotheses[0].finish_reason is not None

    @property
    def settled(self) -> int:
        """How many tokens are there to stay: all."""
        return len(self.hypotheses[0].token_ids)

    def advance(self, step: StepScores) -> None:
        """Append the next token, whatever is likeliest there."""
        (hypothesis,) = self.hypotheses
        token_id = self._target[len(hypothesis.token_ids)]
        hypothesis.extend(token_id, step.row(0).log_probability(token_id))
        if len(hypothesis.token_ids) == len(self._target):
            hypothesis.finish_reason = FinishReason.END_OF_SENTENCE
            hypothesis.score = math.fsum(hypothesis.log_probabilities)

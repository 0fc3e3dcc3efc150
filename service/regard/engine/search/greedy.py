"""Greedy search of many rows at once, where nothing reshapes the model's own scores."""

from __future__ import annotations

import math

from regard.engine.search.hypothesis import Hypothesis
from regard.engine.search.rules import Rules
from regard.engine.search.shortlist import StepScores
from regard.manifest import GenerationSpec


class Greedy:
    """One request's only sequence, which takes the likeliest token that its model may give."""

    copies: tuple[()] = ()
    needs_logits = False

    def __init__(self, rules: Rules, spec: GenerationSpec) -> None:
        self._rules = rules
        self._hypothesis = Hypothesis()
        self.best_needed = 1 + len(spec.suppressed_token_ids)
        """How many of its best tokens the row must show in every step."""
        self.hypotheses = [self._hypothesis]
        self.results = self.hypotheses

    @property
    def done(self) -> bool:
        """Whether the sequence has ended."""
        return self._hypothesis.finish_reason is not None

    @property
    def settled(self) -> int:
        """How many tokens are there to stay: all."""
        return len(self._hypothesis.token_ids)

    def take(self, token_id: int, log_probability: float) -> None:
        """Append the chosen token, or the one that is forced in its place.

        It is called for every row of every step, so it asks the rules only where they may have a say.
        """
        rules, hypothesis = self._rules, self._hypothesis
        at = len(hypothesis.token_ids)
        last = at == rules.limit - 1
        if (at < rules.first_free or last) and (forced := rules.forced(at)) is not None:
            token_id, log_probability = forced, 0.0
        hypothesis.extend(token_id, log_probability)
        if rules.may_end(at, token_id):
            hypothesis.finish_reason = rules.finish_reason(hypothesis.token_ids)
            if hypothesis.finish_reason is not None:
                hypothesis.score = math.fsum(hypothesis.log_probabilities)


def greedy(scores: StepScores, spec: GenerationSpec) -> list[tuple[int, float]]:
    """Return each row's likeliest token that is not suppressed, and its log-probability.

    The log-probability is the model's own, before any suppression. It is rare that the best is suppressed.
    """
    best = scores.best
    for index, (token_id, _) in enumerate(best):
        if token_id in spec.suppressed_token_ids:
            row = scores.row(index)
            listed = row.likeliest(len(row.candidate_ids))
            best[index] = next((pair for pair in listed if pair[0] not in spec.suppressed_token_ids), best[index])
    return best

"""Sequences that take their tokens each for itself: greedily, drawn, or as alternatives to each other."""

from __future__ import annotations

import math

import numpy as np

from regard.engine.search.hypothesis import Hypothesis
from regard.engine.search.options import GenerationOptions
from regard.engine.search.processors import Processors
from regard.engine.search.rules import Rules, no_token_left
from regard.engine.search.sampling import Warpers, draw, uniform
from regard.engine.search.shortlist import MOST_CANDIDATES, RowScores, Shortlist, StepScores, shortlist

_SPARE = 4
"""Candidates beyond those that are needed: a ban or two then doesn't lead to the whole vocabulary."""


class IndependentSearch:
    """One request's sequences: `hypotheses[row]` is what the request's row `row` holds.

    Alternatives are one greedy sequence, held by every row, up to the position where they part:
    there each takes another of the best tokens. No row ever takes over another's state.
    """

    copies: tuple[()] = ()
    needs_logits = True

    def __init__(self, options: GenerationOptions, rules: Rules, processors: Processors) -> None:
        self._options = options
        self._rules = rules
        self._processors = processors
        self._warpers = Warpers(options.temperature, options.top_k, options.top_p, options.min_p)
        self._parting: int | None = None
        if options.alternatives_position is not None:
            self._parting = rules.first_free + options.alternatives_position
        self.hypotheses = [Hypothesis() for _ in range(options.num_return_sequences)]
        self.results = self.hypotheses if self._parting is None else self.hypotheses[:1]
        """The sequences to return: the likeliest alternative first, or as they were drawn."""

    @property
    def best_needed(self) -> int:
        """How many of its best tokens each row should show in every step; the rest are found in the logits."""
        needed = self._options.top_k if self._options.do_sample else self._options.num_return_sequences
        return min(needed + self._processors.always_banned + _SPARE, MOST_CANDIDATES)

    @property
    def done(self) -> bool:
        """Whether every sequence has ended."""
        return all(hypothesis.finish_reason is not None for hypothesis in self.results)

    @property
    def settled(self) -> int:
        """How many tokens of the first sequence are there to stay: all."""
        return len(self.hypotheses[0].token_ids)

    def advance(self, step: StepScores) -> None:
        """Give every sequence its next token."""
        if self._parting is not None and len(self.hypotheses[0].token_ids) <= self._parting:
            self._advance_together(step.row(0), self._parting)
            return
        for row, hypothesis in enumerate(self.results):
            if hypothesis.finish_reason is None:
                self._extend(hypothesis, *self._next(step.row(row), hypothesis, row))

    def _advance_together(self, scores: RowScores, parting: int) -> None:
        """Let every row hold the first row's next token, or part here."""
        first = self.hypotheses[0]
        position = len(first.token_ids)
        if position < parting or self._rules.forced(position) is not None:
            choices = [self._next(scores, first, 0)] * len(self.hypotheses)
        else:
            listed = self._shortlist(scores, first, len(self.hypotheses))
            choices = [(token, scores.log_probability(token)) for token in listed.token_ids.tolist()]
            self.results = self.hypotheses[: len(choices)]
            choices += choices[-1:] * (len(self.hypotheses) - len(choices))  # rows without a result are fed, too
        for hypothesis, choice in zip(self.hypotheses, choices, strict=True):
            self._extend(hypothesis, *choice)

    def _next(self, scores: RowScores, hypothesis: Hypothesis, row: int) -> tuple[int, float]:
        """Return the next token of a sequence and its log-probability; 0 if the token is forced."""
        position = len(hypothesis.token_ids)
        forced = self._rules.forced(position, scores)
        if forced is not None:
            return forced, 0.0
        if not self._options.do_sample:
            token_id = int(self._shortlist(scores, hypothesis, 1).token_ids[0])
        else:
            listed = self._drawable(scores, hypothesis)
            number = uniform(self._options.seed, row, position)
            token_id = draw(listed.token_ids, self._warpers(listed.scores), number)
        return token_id, scores.log_probability(token_id)

    def _drawable(self, scores: RowScores, hypothesis: Hypothesis) -> Shortlist:
        """Return the tokens that the warpers have to look at: the `top_k` best and those that tie with them, or all."""
        if self._options.top_k:
            return self._shortlist(scores, hypothesis, self._options.top_k, ties=True)
        processed = self._processors.process(self._rules.sequence(hypothesis.token_ids), scores.all_logits)
        if processed.max() == -np.inf:
            raise no_token_left()
        return Shortlist(np.arange(len(processed)), processed)

    def _shortlist(self, scores: RowScores, hypothesis: Hypothesis, needed: int, *, ties: bool = False) -> Shortlist:
        sequence = self._rules.sequence(hypothesis.token_ids)
        listed = shortlist(scores, sequence, self._processors, needed, normalized=False, ties=ties)
        if not len(listed.token_ids):
            raise no_token_left()
        return listed

    def _extend(self, hypothesis: Hypothesis, token_id: int, log_probability: float) -> None:
        hypothesis.extend(token_id, log_probability)
        hypothesis.finish_reason = self._rules.finish_reason(hypothesis.token_ids)
        if hypothesis.finish_reason is not None:
            hypothesis.score = math.fsum(hypothesis.log_probabilities)

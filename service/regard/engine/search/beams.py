"""Beam search, as `generate()` of Transformers does it: same tokens, same scores.

In each step the beams' continuations are ranked together. Of the best `num_beams`, those that end
are kept as finished; the best that go on are the beams of the next step. The search ends when the
finished can't be bettered any more, by the rule that `early_stopping` names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from regard.engine.request import FinishReason
from regard.engine.search.hypothesis import Hypothesis
from regard.engine.search.options import GenerationOptions
from regard.engine.search.processors import Processors
from regard.engine.search.rules import Rules, no_token_left
from regard.engine.search.shortlist import MOST_CANDIDATES, StepScores, shortlist

_NEVER = np.float32(-1e9)
"""Added to the score of what must not be chosen while there is anything else, as in Transformers."""


class _Continuation(NamedTuple):
    """A beam and one more token: the beam's row, the score of the whole sequence."""

    row: int
    token_id: int
    log_probability: float
    score: np.float32


class BeamSearch:
    """One request's beams: `hypotheses[row]` is what the request's row `row` holds.

    After `advance`, `copies` lists (from, to) for the rows that must take over another row's state;
    the others go on where they are.
    """

    def __init__(self, options: GenerationOptions, rules: Rules, processors: Processors) -> None:
        self._options = options
        self._rules = rules
        self._processors = processors
        self._kept = max(2, 1 + len(rules.eos_token_ids)) * options.num_beams
        needed = self._kept + processors.always_banned
        self.best_needed = min(needed, MOST_CANDIDATES)
        """How many of its best tokens each row must show in every step."""
        self.needs_logits = not processors.constant or bool(rules.prefix_choices) or self.best_needed < needed
        """Whether a step must give the scores of the whole vocabulary, in case that its best tokens are banned."""
        self._banned = processors.banned(()) if processors.constant else np.zeros(0, np.int64)
        self.hypotheses = [Hypothesis() for _ in range(options.num_beams)]
        self.copies: list[tuple[int, int]] = []
        self.done = False
        self._finished: list[Hypothesis] = []  # at most num_beams, the best first
        self._ranking = list(range(options.num_beams))  # rows, the best first
        self._scores = np.full(options.num_beams, _NEVER, np.float32)  # in the order of the ranking
        self._scores[0] = 0  # all beams begin alike: only one of them may have children

    @property
    def results(self) -> list[Hypothesis]:
        """The sequences to return, the best first."""
        return self._finished[: self._options.num_return_sequences]

    @property
    def settled(self) -> int:
        """How many tokens the best beam shares with every sequence that may still be returned."""
        sequences = [hypothesis.token_ids for hypothesis in (*self.hypotheses, *self._finished)]
        first, last = min(sequences), max(sequences)
        agreed = (at for at, (one, other) in enumerate(zip(first, last, strict=False)) if one != other)
        return next(agreed, len(first))

    def advance(self, step: StepScores) -> None:
        """Give every beam its next token, and keep what has ended."""
        position = len(self.hypotheses[0].token_ids)
        forced = self._rules.forced(position, step.row(0))
        ranked = self._rank(step) if forced is None else self._force(forced)
        if position < len(self._rules.prefix):
            self._go_on(ranked)
            return
        reasons = [self._rules.finish_reason([*self.hypotheses[one.row].token_ids, one.token_id]) for one in ranked]
        length = position + 1 - len(self._rules.prefix)
        for one, reason in zip(ranked[: self._options.num_beams], reasons, strict=False):
            if reason is not None:
                self._finish(one, length, reason)
        self._go_on(self._running(ranked, reasons))
        self.done = None not in reasons or self._is_decided(length)
        if self.done and not self._finished:
            raise no_token_left()

    def _force(self, token_id: int) -> list[_Continuation]:
        pairs = zip(self._ranking, self._scores, strict=True)
        return [_Continuation(row, token_id, 0.0, score) for row, score in pairs]

    def _rank(self, step: StepScores) -> list[_Continuation]:
        """Return the best continuations of all beams, the best first."""
        ranked = self._rank_processed(step) if self.needs_logits else self._rank_candidates(step)
        if not ranked:
            raise no_token_left()
        return ranked

    def _rank_candidates(self, step: StepScores) -> list[_Continuation]:
        """Rank the candidates of all beams at once, which are enough where the same tokens are banned in every step."""
        token_ids, logs = step.candidate_ids[self._ranking], step.log_probabilities[self._ranking]
        scores = logs + self._scores[:, None]
        scores[(token_ids[:, :, None] == self._banned).any(axis=2)] = -np.inf
        best = np.argsort(-scores, axis=None, kind="stable")[: self._kept]
        rows = [self._ranking[rank] for rank in (best // scores.shape[1]).tolist()]
        chosen = zip(rows, token_ids.take(best).tolist(), logs.take(best).tolist(), scores.take(best), strict=True)
        return [_Continuation(*one) for one in chosen if one[-1] > -np.inf]

    def _rank_processed(self, step: StepScores) -> list[_Continuation]:
        """Rank the best tokens of each beam, once its processors have been there."""
        rows = [step.row(row) for row in self._ranking]
        lists = [
            shortlist(
                row, self._rules.sequence(self.hypotheses[at].token_ids), self._processors, self._kept, normalized=True
            )
            for at, row in zip(self._ranking, rows, strict=True)
        ]
        scores = np.concatenate([listed.scores + score for listed, score in zip(lists, self._scores, strict=True)])
        ids = np.concatenate([listed.token_ids for listed in lists])
        ranks = np.repeat(np.arange(len(lists)), [len(listed.token_ids) for listed in lists])
        best = [at for at in np.argsort(-scores, kind="stable")[: self._kept] if scores[at] > -np.inf]
        return [
            _Continuation(
                self._ranking[ranks[at]], int(ids[at]), rows[ranks[at]].log_probability(int(ids[at])), scores[at]
            )
            for at in best
        ]

    def _running(self, ranked: Sequence[_Continuation], reasons: Sequence[FinishReason | None]) -> list[_Continuation]:
        """Return `num_beams` continuations to go on with: those that have not ended, as long as there are any."""
        going = [one for one, reason in zip(ranked, reasons, strict=True) if reason is None]
        ended = [one for one, reason in zip(ranked, reasons, strict=True) if reason is not None]
        filled = [*going, *(one._replace(score=one.score + _NEVER) for one in ended)]
        lacking = self._options.num_beams - len(filled)
        return [*filled, *[filled[0]._replace(score=np.float32(-np.inf))] * lacking][: self._options.num_beams]

    def _go_on(self, continuations: Sequence[_Continuation]) -> None:
        """Make `continuations` the beams: a beam's first child stays in its row, others take dead rows."""
        dead = [row for row in self._ranking if all(one.row != row for one in continuations)]
        self.copies, self._ranking, children = [], [], []
        for one in continuations:
            if one.row in self._ranking:
                row = dead.pop()
                self.copies.append((one.row, row))
                children.append((row, self.hypotheses[one.row].fork(), one))
            else:
                row = one.row
                children.append((row, self.hypotheses[row], one))
            self._ranking.append(row)
        for row, hypothesis, one in children:
            hypothesis.extend(one.token_id, one.log_probability)
            self.hypotheses[row] = hypothesis
        self._scores = np.array([one.score for one in continuations], np.float32)

    def _finish(self, one: _Continuation, length: int, reason: FinishReason) -> None:
        """Keep a sequence that has ended, if it is among the best so far."""
        hypothesis = self.hypotheses[one.row].fork()
        hypothesis.extend(one.token_id, one.log_probability)
        hypothesis.score = float(one.score / np.float32(length**self._options.length_penalty))
        hypothesis.finish_reason = reason
        self._finished = sorted([*self._finished, hypothesis], key=lambda ended: -ended.score)
        del self._finished[self._options.num_beams :]

    def _is_decided(self, length: int) -> bool:
        """Whether no beam can better the worst of the finished, as `early_stopping` judges it."""
        options = self._options
        if len(self._finished) < options.num_beams:
            return not self._scores[0] > _NEVER
        if options.early_stopping is True:
            return True
        if options.early_stopping == "never" and options.length_penalty > 0:
            length = options.max_new_tokens
        return not self._scores[0] / np.float32(length**options.length_penalty) > self._finished[-1].score

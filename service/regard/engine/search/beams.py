"""Beam search, as `generate()` of Transformers does it: same tokens, same scores.

In each step the beams' continuations are ranked together. Of the best `num_beams`, those that end
are kept as finished; the best that go on are the beams of the next step. The search ends when the
finished can't be bettered any more, by the rule that `early_stopping` names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
_NO_TOKEN = -1


class Continuation(NamedTuple):
    """A beam and one more token: the beam's row, the score of the whole sequence."""

    row: int
    token_id: int
    log_probability: float
    score: np.float32


class BeamSearch:
    """One request's beams: `hypotheses[row]` is what the request's row `row` holds.

    After `advance`, `copies` lists (from, to, unlike) for the rows that must take over another row's state;
    the others go on where they are. Beams whose tokens begin alike were one beam until then: only the last
    `unlike` tokens that were read are others.
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
        self._banned = processors.banned(()).tolist() if processors.constant else []
        self.hypotheses = [Hypothesis() for _ in range(options.num_beams)]
        self.copies: list[tuple[int, int, int]] = []
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
        if not self.needs_logits:
            self.take(rank({0: self}, step)[0])
            return
        forced = self._rules.forced(self._position, step.row(0))
        self._take(self._rank_processed(step) if forced is None else self._force(forced))

    def take(self, ranked: list[Continuation]) -> None:
        """Do what `advance` does, given what `rank` says of this search."""
        forced = self._rules.forced(self._position)
        self._take(ranked if forced is None else self._force(forced))

    @property
    def _position(self) -> int:
        return len(self.hypotheses[0].token_ids)

    def _take(self, ranked: list[Continuation]) -> None:
        """Choose among continuations, the best first."""
        if not ranked:
            raise no_token_left()
        position = self._position
        if position < len(self._rules.prefix):
            self._go_on(ranked)
            return
        reasons = [self._ends(one, position) for one in ranked]
        length = position + 1 - len(self._rules.prefix)
        for one, reason in zip(ranked[: self._options.num_beams], reasons, strict=False):
            if reason is not None:
                self._finish(one, length, reason)
        self._go_on(self._running(ranked, reasons))
        self.done = None not in reasons or self._is_decided(length)
        if self.done and not self._finished:
            raise no_token_left()

    def _ends(self, one: Continuation, position: int) -> FinishReason | None:
        if not self._rules.may_end(position, one.token_id):
            return None
        return self._rules.finish_reason([*self.hypotheses[one.row].token_ids, one.token_id])

    def _force(self, token_id: int) -> list[Continuation]:
        pairs = zip(self._ranking, self._scores, strict=True)
        return [Continuation(row, token_id, 0.0, score) for row, score in pairs]

    def _rank_processed(self, step: StepScores) -> list[Continuation]:
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
            Continuation(
                self._ranking[ranks[at]], int(ids[at]), rows[ranks[at]].log_probability(int(ids[at])), scores[at]
            )
            for at in best
        ]

    def _running(self, ranked: Sequence[Continuation], reasons: Sequence[FinishReason | None]) -> list[Continuation]:
        """Return `num_beams` continuations to go on with: those that have not ended, as long as there are any."""
        if not any(reasons) and len(ranked) >= self._options.num_beams:  # as in most steps
            return list(ranked[: self._options.num_beams])
        going = [one for one, reason in zip(ranked, reasons, strict=True) if reason is None]
        ended = [one for one, reason in zip(ranked, reasons, strict=True) if reason is not None]
        filled = [*going, *(one._replace(score=one.score + _NEVER) for one in ended)]
        lacking = self._options.num_beams - len(filled)
        return [*filled, *[filled[0]._replace(score=np.float32(-np.inf))] * lacking][: self._options.num_beams]

    def _go_on(self, continuations: Sequence[Continuation]) -> None:
        """Make `continuations` the beams: a beam's first child stays in its row, others take dead rows."""
        parents = {one.row for one in continuations}
        dead = [row for row in self._ranking if row not in parents]
        self.copies, self._ranking, children = [], [], []
        for one in continuations:
            if one.row in self._ranking:
                row = dead.pop()
                self.copies.append((one.row, row, self._unlike(one.row, row)))
                children.append((row, self.hypotheses[one.row].fork(), one))
            else:
                row = one.row
                children.append((row, self.hypotheses[row], one))
            self._ranking.append(row)
        for row, hypothesis, one in children:
            hypothesis.extend(one.token_id, one.log_probability)
            self.hypotheses[row] = hypothesis
        self._scores = np.array([one.score for one in continuations], np.float32)

    def _unlike(self, row: int, other: int) -> int:
        """Return how many tokens follow those that two beams have in common."""
        pairs = zip(self.hypotheses[row].token_ids, self.hypotheses[other].token_ids, strict=True)
        return self._position - next((at for at, (one, its) in enumerate(pairs) if one != its), self._position)

    def _finish(self, one: Continuation, length: int, reason: FinishReason) -> None:
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


def rank(searches: Mapping[int, BeamSearch], step: StepScores) -> dict[int, list[Continuation]]:
    """Return the best continuations of each search that needs no logits, the best first, all by their places.

    The search at place n has the n-th rows of its width. The same tokens are banned in every step of such a search,
    so that its candidates are enough; and those of all are ranked at once, which takes little longer than for one.
    """
    several, needed = list(searches.values()), step.candidate_ids.shape[1]
    width = len(several[0].hypotheses)
    rows = np.array([[place * width + row for row in search._ranking] for place, search in searches.items()])
    most_banned = max(len(search._banned) for search in several)
    banned = np.array([search._banned + [_NO_TOKEN] * (most_banned - len(search._banned)) for search in several])
    token_ids, logs = step.candidate_ids[rows], step.log_probabilities[rows]
    scores = logs + np.array([search._scores for search in several])[:, :, None]
    scores[(token_ids[:, :, :, None] == banned[:, None, None, :]).any(axis=3)] = -np.inf
    best = np.argsort(-scores.reshape(len(several), -1), axis=1, kind="stable")
    best = best[:, : max(search._kept for search in several)]
    at = best + np.arange(len(several))[:, None] * width * needed
    ranks, chosen_ids, chosen_logs = (best // needed).tolist(), token_ids.take(at).tolist(), logs.take(at).tolist()
    return {
        place: [
            Continuation(search._ranking[ranked], token_id, log_probability, score)
            for ranked, token_id, log_probability, score in zip(*chosen, strict=True)
            if score > -np.inf
        ][: search._kept]
        for (place, search), *chosen in zip(
            searches.items(), ranks, chosen_ids, chosen_logs, scores.take(at), strict=True
        )
    }

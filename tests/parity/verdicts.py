"""Whether the engine's answers are those of the eager model, or tied with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from regard.engine.request import GeneratedSequence, Generation
from regard.engine.search.rules import Rules

from .family import Ask, Family
from .reference import Expected

TOLERANCE = 1e-4
TIE_MARGIN = 1e-4


@dataclass
class Verdicts:
    """What became of the requests of one model, by the names of their option sets."""

    asked: Counter[str] = field(default_factory=Counter)
    ties: Counter[str] = field(default_factory=Counter)
    differences: Counter[str] = field(default_factory=Counter)
    explanations: list[str] = field(default_factory=list)
    worst_score: float = 0.0
    """The greatest difference of any score or log-probability from the eager model's."""

    @property
    def totals(self) -> tuple[int, int, int]:
        """How many requests were asked, and how many of their answers tie and differ."""
        return self.asked.total(), self.ties.total(), self.differences.total()

    def judge(self, ask: Ask, answer: Generation, family: Family) -> None:
        """Compare an answer's tokens, scores and log-probabilities with those of the eager model."""
        self.asked[ask.name] += 1
        expected = family.reference.search(ask.arguments, ask.given)
        ours = [sequence.token_ids for sequence in answer.sequences]
        if len(ours) != len(expected.sequences):
            self._differ(ask, f"{len(ours)} sequences instead of {len(expected.sequences)}")
        elif not same_tokens(ours, expected.sequences, family.spec.pad_token_id):
            self._tie_or_differ(ask, expected.excuse(ours), f"{ours} instead of {expected.sequences}")
        elif (difference := _scores_differ(ask, answer, family, expected)) > TOLERANCE:
            ours_off, theirs_off = _rounding(ask, answer, family)
            rounding = f"the float64 model is {ours_off:.1e} from ours, {theirs_off:.1e} from the eager model's own"
            self._differ(ask, f"scores differ by {difference:.1e}; {rounding}")
        else:
            self.worst_score = max(self.worst_score, difference)

    def judge_again(self, ask: Ask, answer: Generation, alone: Generation, family: Family) -> None:
        """Compare the tokens that a request got in a batch with those that it gets alone."""
        ours = [sequence.token_ids for sequence in answer.sequences]
        others = [sequence.token_ids for sequence in alone.sequences]
        if ours != others:
            excuse = family.reference.search(ask.arguments, ask.given).excuse(ours)
            self._tie_or_differ(ask, excuse, f"{ours} in a batch, {others} alone")

    def _tie_or_differ(self, ask: Ask, margin: float, problem: str) -> None:
        if margin <= TIE_MARGIN:
            self.ties[ask.name] += 1
        else:
            self._differ(ask, f"{problem}, by {margin:.1e}")

    def _differ(self, ask: Ask, problem: str) -> None:
        self.differences[ask.name] += 1
        self.explanations.append(f"{ask.name}: {problem}; asked for {dict(ask.given)}")


def _rounding(ask: Ask, answer: Generation, family: Family) -> tuple[float, float]:
    """Return how far scores are at most from those of the model in float64: ours, and those of its own float32.

    They are told of the tokens' log-probabilities, as far as a score has multiplied their sum.
    """
    rules = Rules.of(ask.options, family.spec, family.reference.prompt(ask.arguments))
    exact, farthest = family.reference.in_float64(), np.zeros(2)
    for sequence in answer.sequences:
        free = torch.tensor([rules.forced(at) is None for at in range(len(sequence.token_ids))])
        taken = torch.tensor(sequence.token_ids)[:, None]
        ours = torch.tensor(sequence.log_probabilities).double()
        own, truth = (
            reference.log_probabilities(ask.arguments, sequence.token_ids).double().gather(1, taken)[:, 0]
            for reference in (family.reference, exact)
        )
        multiplied = sequence.score / float(ours.sum()) if ours.any() else 1.0
        off = [float((found - truth)[free].sum()) for found in (ours, own)]
        farthest = np.maximum(farthest, np.abs(multiplied * np.array(off)))
    return float(farthest[0]), float(farthest[1])


def log_probabilities_differ(sequence: GeneratedSequence, eager: torch.Tensor, forced: Sequence[bool]) -> float:
    """Return the greatest difference of told log-probabilities from the eager model's [T, V].

    A forced token's is 0. The likeliest tokens are compared with those at the same rank, too.
    """
    expected = eager.gather(1, torch.tensor(sequence.token_ids)[:, None])[:, 0]
    expected[torch.tensor(forced)] = 0.0
    differences = [(torch.tensor(sequence.log_probabilities) - expected).abs().max()]
    for listed, row in zip(sequence.top_logprobs, eager, strict=False):
        told = torch.tensor([one.log_probability for one in listed])
        differences += [
            (told - row.topk(len(listed)).values).abs().max(),
            (told - row[[one.token_id for one in listed]]).abs().max(),
        ]
    return float(torch.stack(differences).max())


def same_tokens(ours: list[list[int]], theirs: list[list[int]], pad_token_id: int) -> bool:
    """Tell whether all sequences are the same, but for what pads the others."""
    return all(
        other[: len(one)] == one and set(other[len(one) :]) <= {pad_token_id}
        for one, other in zip(ours, theirs, strict=True)
    )


def _scores_differ(ask: Ask, answer: Generation, family: Family, expected: Expected) -> float:
    rules = Rules.of(ask.options, family.spec, family.reference.prompt(ask.arguments))
    differences = []
    for sequence in answer.sequences:
        eager = family.reference.log_probabilities(ask.arguments, sequence.token_ids)
        forced = [rules.forced(at) is not None for at in range(len(sequence.token_ids))]
        differences.append(log_probabilities_differ(sequence, eager, forced))
    scores = [sequence.score for sequence in answer.sequences]
    theirs = expected.scores or [sum(sequence.log_probabilities) for sequence in answer.sequences]
    return max(*differences, float(np.abs(np.subtract(scores, theirs)).max()))

"""Every processor and warper against the class of Transformers that it is named after, on random scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers

from regard.engine.search.processors import (
    Ban,
    MinLength,
    NoBadWords,
    NoRepeatNGram,
    Processors,
    RepetitionPenalty,
    SuppressTokens,
    SuppressTokensAtBegin,
)
from regard.engine.search.rules import Rules
from regard.engine.search.sampling import Warpers, draw, uniform
from regard.engine.search.shortlist import StepScores, shortlist

VOCABULARY = 40
EOS = (0, 7)
DRAWS = 10_000

WORDS = ((3,), (4, 5), (1, 2, 3), (0,), (6, 0))
BANS: dict[str, tuple[Ban, Any]] = {
    "no_repeat_1_gram": (NoRepeatNGram(1), transformers.NoRepeatNGramLogitsProcessor(1)),
    "no_repeat_2_gram": (NoRepeatNGram(2), transformers.NoRepeatNGramLogitsProcessor(2)),
    "no_repeat_4_gram": (NoRepeatNGram(4), transformers.NoRepeatNGramLogitsProcessor(4)),
    "bad_words": (
        NoBadWords(tuple(word for word in WORDS if word != (0,))),
        transformers.NoBadWordsLogitsProcessor([list(word) for word in WORDS], eos_token_id=list(EOS)),
    ),
    "min_length": (MinLength(9, EOS), transformers.MinLengthLogitsProcessor(9, list(EOS))),
    "min_new_tokens": (MinLength(2 + 7, EOS), transformers.MinNewTokensLengthLogitsProcessor(2, 7, list(EOS))),
    "suppress": (SuppressTokens((1, 8)), transformers.SuppressTokensLogitsProcessor([1, 8])),
    "suppress_at_begin": (
        SuppressTokensAtBegin((1, 8), 5),
        transformers.SuppressTokensAtBeginLogitsProcessor([1, 8], 5),
    ),
}
WARPERS = [
    (Warpers(temperature=0.3), [transformers.TemperatureLogitsWarper(0.3)]),
    (Warpers(top_k=7), [transformers.TopKLogitsWarper(7)]),
    (Warpers(top_k=99), [transformers.TopKLogitsWarper(99)]),
    (Warpers(top_p=0.6), [transformers.TopPLogitsWarper(0.6)]),
    (Warpers(top_p=0.0), [transformers.TopPLogitsWarper(0.0)]),
    (Warpers(min_p=1e-300), [transformers.MinPLogitsWarper(1e-300)]),
    (Warpers(min_p=0.2), [transformers.MinPLogitsWarper(0.2)]),
    (
        Warpers(temperature=1.7, top_k=20, top_p=0.8, min_p=0.05),
        [
            transformers.TemperatureLogitsWarper(1.7),
            transformers.TopKLogitsWarper(20),
            transformers.TopPLogitsWarper(0.8),
            transformers.MinPLogitsWarper(0.05),
        ],
    ),
]


def sequences() -> list[list[int]]:
    """Return sequences of every length to 30, of few enough tokens that words and n-grams come again."""
    random = np.random.default_rng(0)
    return [random.integers(0, 9, length).tolist() for length in range(1, 31) for _ in range(5)]


def scores_of(seed: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Return random scores, positive and negative."""
    return np.random.default_rng(seed).normal(0, 3, VOCABULARY).astype(np.float32)


def expected(processors: list[Any], sequence: list[int], scores: Any) -> Any:
    """Return what Transformers makes of the scores of one row."""
    processed = torch.from_numpy(scores.copy())[None]
    for processor in processors:
        processed = processor(torch.tensor([sequence]), processed)
    return processed[0].numpy()


@pytest.mark.parametrize("name", BANS)
def test_a_ban_takes_out_the_tokens_that_transformers_takes_out(name: str) -> None:
    """The same tokens have -inf, and the others their scores."""
    ban, theirs = BANS[name]
    for seed, sequence in enumerate(sequences()):
        scores = scores_of(seed)
        assert np.array_equal(Processors((ban,)).process(sequence, scores), expected([theirs], sequence, scores))


@pytest.mark.parametrize("length", [1, 2, 3])
def test_the_tokens_that_are_forced_are_those_of_transformers(length: int) -> None:
    """Also where the first is the last: there, only the end has a score."""
    rules = Rules((3,), (0,), (), (), 7, 0, length, None)
    theirs = [
        transformers.ForcedBOSTokenLogitsProcessor(7),
        transformers.ForcedEOSTokenLogitsProcessor(1 + length, 0),
    ]
    for position in range(length):
        scores = scores_of(position)
        forced = rules.forced(position)
        left = np.flatnonzero(np.isfinite(expected(theirs, [3] * (1 + position), scores)))
        assert left.tolist() == ([*range(VOCABULARY)] if forced is None else [forced])


@pytest.mark.parametrize("penalty", [0.5, 1.3])
def test_the_repetition_penalty_is_that_of_transformers(penalty: float) -> None:
    """Positive and negative scores, penalties above and below one."""
    theirs = transformers.RepetitionPenaltyLogitsProcessor(penalty)
    for seed, sequence in enumerate(sequences()):
        scores = scores_of(seed)
        ours = Processors((), RepetitionPenalty(penalty)).process(sequence, scores)
        assert np.allclose(ours, expected([theirs], sequence, scores), atol=1e-6)


@pytest.mark.parametrize("penalty", [None, 0.5, 1.3])
@pytest.mark.parametrize("needed", [1, 4, 8])
@pytest.mark.parametrize("normalized", [True, False])
def test_a_shortlist_holds_the_best_of_all(penalty: float | None, needed: int, normalized: bool) -> None:
    """From eight candidates as from the whole vocabulary, whatever is banned, penalised or raised."""
    processors = Processors(
        (NoRepeatNGram(2), SuppressTokens((1, 8))), RepetitionPenalty(penalty) if penalty is not None else None
    )
    for seed, sequence in enumerate(sequences()):
        logits = scores_of(seed)
        total = np.float32(np.log(np.exp(logits).sum()))
        best = np.argsort(-logits)[:8]
        step = StepScores(best[None], logits[best][None], np.array([[total]]), logits[None])
        listed = shortlist(step.row(0), sequence, processors, needed, normalized=normalized)
        whole = processors.process(sequence, logits - total if normalized else logits)
        order = np.argsort(-whole)[:needed]
        assert listed.token_ids.tolist() == order.tolist()
        assert np.allclose(listed.scores, whole[order], atol=1e-6)


@pytest.mark.parametrize("candidates", [8, 12, 30])
def test_tokens_that_tie_with_the_last_of_the_best_can_be_drawn(candidates: int) -> None:
    """As with Transformers, of scores that are few different numbers, as those of fp16 are."""
    for seed in range(50):
        logits = np.random.default_rng(seed).integers(-4, 4, VOCABULARY).astype(np.float32)
        best = np.argsort(-logits, kind="stable")[:candidates]
        step = StepScores(best[None], logits[best][None], np.zeros((1, 1), np.float32), logits[None])
        listed = shortlist(step.row(0), [1], Processors(()), 8, normalized=False, ties=True)
        reference = expected([transformers.TopKLogitsWarper(8)], [1], logits)
        assert sorted(listed.token_ids.tolist()) == np.flatnonzero(np.isfinite(reference)).tolist()


@pytest.mark.parametrize(("ours", "theirs"), WARPERS)
def test_the_filtered_distribution_is_that_of_transformers(ours: Warpers, theirs: list[Any]) -> None:
    """The same tokens can be drawn, with the same probabilities; -inf, as bans leave it, stays."""
    for seed in range(100):
        scores = scores_of(seed)
        scores[seed % VOCABULARY] = -np.inf
        warped, reference = ours(scores), expected(theirs, [1], scores)
        assert np.array_equal(np.isfinite(warped), np.isfinite(reference))
        finite = np.isfinite(reference)
        assert np.allclose(warped[finite], reference[finite], atol=1e-6)


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    """Of 10,000 draws, each token's share is within five standard deviations of its probability."""
    scores = Warpers(temperature=1.5, top_k=12, top_p=0.95)(scores_of(3))
    probabilities = torch.from_numpy(scores).softmax(-1).numpy()
    ids = np.arange(VOCABULARY)
    drawn = np.bincount([draw(ids, scores, uniform(5, 0, at)) for at in range(DRAWS)], minlength=VOCABULARY)
    deviations = np.sqrt(DRAWS * probabilities * (1 - probabilities))
    assert (np.abs(drawn - DRAWS * probabilities) <= 5 * deviations).all()


def test_a_draw_from_a_shortlist_is_the_draw_from_the_whole() -> None:
    """The order and the number of the tokens that can't be drawn make no difference."""
    scores = scores_of(4)
    best = np.argsort(-scores)[:9]
    for at in range(200):
        number = uniform(1, 2, at)
        whole = draw(np.arange(VOCABULARY), Warpers(top_k=9)(scores), number)
        assert draw(best, Warpers(top_k=9)(scores[best]), number) == whole


def test_numbers_differ_between_seeds_sequences_and_positions() -> None:
    """Each of 60 combinations has a number of its own, and the same one again."""
    numbers = {uniform(seed, row, at) for seed in (0, 1, 2**64 - 1) for row in range(4) for at in range(5)}
    assert len(numbers) == 60
    assert uniform(2**64 - 1, 3, 4) in numbers
    assert all(0 <= number < 1 for number in numbers)

"""From scores to decisions."""

from __future__ import annotations

import numpy as np
import pytest

from regard.engine.request import FinishReason
from regard.engine.search.beams import BeamSearch, rank
from regard.engine.search.greedy import Greedy, greedy
from regard.engine.search.options import GenerationOptions
from regard.engine.search.rules import Rules, processors_of
from regard.engine.search.shortlist import StepScores
from regard.testing import END, echo_package

SPEC = echo_package().manifest.generation
assert SPEC is not None


def rules(**options: object) -> Rules:
    """Return the rules of a request of ten tokens to a checkpoint that forces its first and its last."""
    forced = {"forced_bos_token_id": 7, "forced_eos_token_id": END, "max_new_tokens": 10}
    return Rules.of(GenerationOptions(**forced | options), SPEC, [0])  # type: ignore[arg-type]


def test_greedy_takes_the_best_token_that_is_not_suppressed() -> None:
    """The suppressed token leads in the first row only; its log-probability is that of the one taken."""
    candidates = np.array([[3, 2], [3, 2]], np.float32)
    scores = StepScores(np.array([[0, 5], [6, 0]]), candidates, np.ones((2, 1), np.float32))
    assert greedy(scores, SPEC) == [(5, 1.0), (6, 2.0)]


def test_rows_that_are_not_finite_are_told_apart() -> None:
    """NaN in one row leaves the other alone."""
    scores = StepScores(np.array([[5, 6]] * 2), np.array([[1, 0], [np.nan, 0]], np.float32), np.ones((2, 1)))
    (_, first), (_, second) = scores.best
    assert first == 0
    assert np.isnan(second)


def test_candidates_cover_every_suppressed_token() -> None:
    """A row shows one more than there are suppressed tokens, so that one is left."""
    assert Greedy(rules(), SPEC).best_needed == 2


@pytest.mark.parametrize(("position", "token"), [(0, 7), (1, None), (8, None), (9, END)])
def test_forced_tokens_stand_first_and_last(position: int, token: int | None) -> None:
    """The first token and the tenth of ten are the checkpoint's; a request without any has none."""
    assert rules().forced(position) == token
    assert rules(forced_bos_token_id=None, forced_eos_token_id=None).forced(position) is None


def test_of_two_tokens_forced_in_one_place_the_end_stands() -> None:
    """A single token is the last before it is the first."""
    assert rules(max_new_tokens=1).forced(0) == END


@pytest.mark.parametrize(("position", "token"), [(0, 5), (1, 6), (2, None), (11, END)])
def test_a_prefix_stands_in_the_place_of_the_forced_beginning(position: int, token: int | None) -> None:
    """Behind its two tokens come ten more, the last of them forced."""
    assert rules(prefix_token_ids=(5, 6)).forced(position) == token


def test_the_end_of_the_sentence_wins_over_the_length() -> None:
    """A sentence that ends on its last allowed token has ended by itself."""
    assert rules().finish_reason([9] * 9 + [END]) is FinishReason.END_OF_SENTENCE
    assert rules().finish_reason([9] * 10) is FinishReason.LENGTH
    assert rules().finish_reason([9] * 9) is None


def test_nothing_ends_within_a_prefix() -> None:
    """Neither at the end of a sentence nor at a stop string; both end what comes behind it."""
    prefixed = rules(prefix_token_ids=(END, 8), ends_at_stop=lambda token_ids: token_ids[-1] == 8)
    assert prefixed.finish_reason([END]) is None
    assert prefixed.finish_reason([END, 8]) is None
    assert prefixed.finish_reason([END, 8, 8]) is FinishReason.STOP_STRING


@pytest.mark.parametrize("more", [0, 5, 40], ids=["as many candidates as needed", "more candidates", "all tokens"])
@pytest.mark.parametrize("suppressed", [(), (3, 11, 12)], ids=["nothing suppressed", "three tokens suppressed"])
def test_beams_ranked_by_candidates_are_those_ranked_by_all_scores(suppressed: tuple[int, ...], more: int) -> None:
    """Both give the same beams, numbers and copies in every step, with ties within a row and between rows."""
    rng = np.random.default_rng(5)
    options = GenerationOptions(12, num_beams=4, num_return_sequences=4, suppress_tokens=suppressed)
    own = Rules.of(options, SPEC, [0])
    one, other = (BeamSearch(options, own, processors_of(options, SPEC, 1)) for _ in range(2))
    assert not one.needs_logits
    other.needs_logits = True
    for _ in range(8):
        logits = rng.integers(-6, 6, (4, 50)).astype(np.float32)
        total = np.log(np.exp(logits).sum(axis=1, keepdims=True))
        best = np.argsort(-logits, axis=1, kind="stable")[:, : one.best_needed + more]
        candidates = np.take_along_axis(logits, best, axis=1)
        one.advance(StepScores(best, candidates, total))
        other.advance(StepScores(best[:, :1], candidates[:, :1], total, logits))  # too few: it looks at all
        assert one.copies == other.copies
        for mine, its in zip(one.hypotheses, other.hypotheses, strict=True):
            assert (mine.token_ids, mine.log_probabilities) == (its.token_ids, its.log_probabilities)
    assert [(r.token_ids, r.score) for r in one.results] == [(r.token_ids, r.score) for r in other.results]


def test_beams_ranked_side_by_side_are_those_ranked_alone() -> None:
    """Searches of other bans and ends, at places with others between them, find what each finds by itself."""
    rng = np.random.default_rng(6)
    asked = [
        GenerationOptions(12, num_beams=3),
        GenerationOptions(12, num_beams=3, suppress_tokens=(3, 11, 12), prefix_token_ids=(9, 8)),
        GenerationOptions(12, num_beams=3, suppress_tokens=tuple(range(2, 48))),  # leaves two or three
    ]
    alone, together = (
        [BeamSearch(one, Rules.of(one, SPEC, [0]), processors_of(one, SPEC, 1)) for one in asked] for _ in range(2)
    )
    assert not any(search.needs_logits for search in together)
    places = (0, 2, 3)
    for _ in range(8):
        logits = rng.integers(-6, 6, (3 * 4, 50)).astype(np.float32)
        total = np.log(np.exp(logits).sum(axis=1, keepdims=True))
        best = np.argsort(-logits, axis=1, kind="stable")[:, : max(search.best_needed for search in together)]
        step = StepScores(best, np.take_along_axis(logits, best, axis=1), total)
        for place, search in zip(places, alone, strict=True):
            search.advance(step.of(3 * place, 3))
        ranked = rank(dict(zip(places, together, strict=True)), step)
        for place, search in zip(places, together, strict=True):
            search.take(ranked[place])
        for one, other in zip(alone, together, strict=True):
            assert one.copies == other.copies
            assert [found.token_ids for found in one.hypotheses] == [found.token_ids for found in other.hypotheses]
            assert [found.log_probabilities for found in one.hypotheses] == [
                found.log_probabilities for found in other.hypotheses
            ]
            assert [(found.token_ids, found.score) for found in one.results] == [
                (found.token_ids, found.score) for found in other.results
            ]


@pytest.mark.parametrize("banned", [0, 46], ids=["many tokens", "so few tokens that beams are lacking"])
def test_what_a_beam_takes_over_is_what_it_has_not_got(banned: int) -> None:
    """Rows that copy only what is said to be unlike have read their own sequences in every step."""
    rng = np.random.default_rng(7)
    options = GenerationOptions(40, num_beams=4, suppress_tokens=tuple(range(2, 2 + banned)))
    search = BeamSearch(options, Rules.of(options, SPEC, [0]), processors_of(options, SPEC, 1))
    read: list[list[int]] = [[] for _ in range(4)]
    copied = whole = 0
    for _ in range(30):
        logits = rng.standard_normal((4, 50)).astype(np.float32)
        logits[:, END] = -50
        total = np.log(np.exp(logits).sum(axis=1, keepdims=True))
        best = np.argsort(-logits, axis=1, kind="stable")[:, : search.best_needed]
        search.advance(StepScores(best, np.take_along_axis(logits, best, axis=1), total))
        for source, target, unlike in search.copies:
            kept = len(read[source]) - unlike
            read[target][kept:] = read[source][kept:]
            copied, whole = copied + unlike, whole + len(read[source])
        assert read == [hypothesis.token_ids[:-1] for hypothesis in search.hypotheses]
        for row, hypothesis in zip(read, search.hypotheses, strict=True):
            row.append(hypothesis.token_ids[-1])
    assert copied < whole / 2

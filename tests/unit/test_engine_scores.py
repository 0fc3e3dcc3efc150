"""When a step finds out how likely its tokens are, and who is told."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from regard.engine.memory import Array
from regard.engine.request import GeneratedSequence, Generation, TokenEvent
from regard.errors import EngineError
from regard.testing import END

from .test_engine_generator import Bench

SOURCE = [5, 6, 7]
SILENT = {"return_scores": False}


def bench_of_scores() -> Bench:
    """Return an engine whose step is told whether it is scored; where it isn't, its denominators mean nothing."""
    bench = Bench()
    bench.steps.inputs |= {"scored"}
    compute = bench.steps._compute

    def told(feeds: Mapping[str, Array]) -> dict[str, Array]:
        outputs = compute(feeds)
        if not feeds["scored"].item():
            outputs["log_sum_exp"] = 5 + 3 * np.arange(len(feeds["token_ids"]), dtype=np.float32)[:, None]
        return outputs

    bench.steps._compute = told
    return bench


def scored_of(bench: Bench) -> list[bool]:
    """Return whether each step so far was scored."""
    return [bool(call["scored"].item()) for call in bench.steps.calls]


def run(*requests: dict[str, Any]) -> tuple[list[bool], list[list[GeneratedSequence]]]:
    """Return whether each step of these requests was scored, and what came of each request."""
    bench = bench_of_scores()
    heard = [bench.submit(SOURCE, **options)[1] for options in requests]
    bench.run()
    results = [one[-1] for one in heard]
    assert all(isinstance(result, Generation) for result in results)
    return scored_of(bench), [result.sequences for result in results if isinstance(result, Generation)]


def test_scores_are_found_unless_nobody_wants_them() -> None:
    """The three tokens and the end."""
    assert run({})[0] == [True] * 4
    assert run(SILENT)[0] == [False] * 4


def test_a_batch_of_the_same_size_is_bound_anew_where_that_changes() -> None:
    """Who comes after those that want none is told what is true, and the other way round."""
    bench = bench_of_scores()
    for options, scored in ((SILENT, False), ({}, True), (SILENT, False)):
        before = len(bench.steps.calls)
        _, heard = bench.submit(SOURCE, **options)
        bench.run()
        (result,) = heard
        assert isinstance(result, Generation)
        assert set(scored_of(bench)[before:]) == {scored}
        assert (result.best.score == 0) is scored


def test_whoever_joins_those_that_want_none_is_told_all() -> None:
    """From the first step that both take."""
    bench = bench_of_scores()
    bench.submit([*SOURCE, *SOURCE], **SILENT)
    bench.engine.step()
    _, heard = bench.submit(SOURCE)
    bench.run()
    (result,) = heard
    assert isinstance(result, Generation)
    assert result.best.log_probabilities == [0.0] * 4
    assert scored_of(bench) == [False, *[True] * 4, False, False]


@pytest.mark.parametrize(
    ("options", "scored"),
    [
        ({"num_beams": 2}, True),
        ({"do_sample": True}, False),
        ({"repetition_penalty": 1.5}, False),
        ({"alternatives_position": 1, "num_return_sequences": 2}, False),
    ],
    ids=["beams", "draws", "a penalty", "alternatives"],
)
def test_beam_search_needs_them_itself(options: dict[str, Any], scored: bool) -> None:
    """It adds log-probabilities up; no other search needs more than the logits."""
    found, _ = run({"max_new_tokens": 3} | options | SILENT)
    assert found
    assert set(found) == {scored}


def test_rows_side_by_side_have_them_while_one_of_them_does() -> None:
    """Until those that are told scores have ended."""
    assert run({"max_new_tokens": 2}, SILENT)[0] == [True, True, False, False]


@pytest.mark.parametrize(
    "options",
    [{}, {"num_beams": 2, "num_return_sequences": 2}, {"do_sample": True, "seed": 1}, {"suppress_tokens": (9,)}],
)
def test_whoever_wants_none_gets_the_same_tokens_without(options: dict[str, Any]) -> None:
    """Scores are not numbers then, also where a search or the row beside has found them."""
    _, ((*plain,), (*silent,)) = run(options, options | SILENT)
    _, ((*alone,),) = run(options | SILENT)
    assert len(plain) == len(silent) == len(alone)
    for told, *others in zip(plain, silent, alone, strict=True):
        assert math.isfinite(told.score) and all(map(math.isfinite, told.log_probabilities))
        for other in others:
            assert other.token_ids == told.token_ids
            assert math.isnan(other.score)
            assert len(other.log_probabilities) == len(other.token_ids)
            assert all(map(math.isnan, other.log_probabilities))


def test_a_stream_tells_none_either() -> None:
    """Each of its tokens comes without."""
    bench = bench_of_scores()
    _, heard = bench.submit(SOURCE, streaming=True, return_scores=False)
    bench.run()
    tokens = [event for event in heard if isinstance(event, TokenEvent)]
    assert [event.token_id for event in tokens] == [*SOURCE, END]
    assert all(math.isnan(event.log_probability) for event in tokens)


def test_a_model_that_gives_no_numbers_is_found_out_without_scores() -> None:
    """Logits that are none end the request, as they do with scores."""
    bench = Bench()
    _, heard = bench.submit(SOURCE, return_scores=False)
    bench.engine.step()
    bench.engine.lanes[1, False].rows._cross["cross_key.0"][0] = math.nan
    bench.run()
    (error,) = heard
    assert isinstance(error, EngineError) and "not finite" in error.message

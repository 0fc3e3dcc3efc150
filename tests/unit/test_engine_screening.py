"""When a step may screen the vocabulary: for a row that is alone, and needs but a few of its best tokens."""

from __future__ import annotations

from typing import Any

import pytest

from regard.engine.lane import MOST_OF_SCREENED, SCREENED

from .test_engine_generator import Bench


def screened(*requests: dict[str, Any], can_screen: bool = True) -> list[int]:
    """Return how many tokens each step of these requests may screen."""
    bench = Bench()
    if can_screen:
        bench.steps.inputs |= {"num_screened"}
    for options in requests:
        bench.submit([5, 6, 7], **options)
    while bench.scheduler.waiting or bench.engine.busy:
        bench.engine.step()
    return [int(call["num_screened"].item()) for call in bench.steps.calls if "num_screened" in call]


def test_a_row_that_is_alone_screens() -> None:
    """The three tokens and the end; also while it shows a few of the likeliest tokens."""
    assert screened({}) == [SCREENED] * 4
    assert screened({"top_logprobs": MOST_OF_SCREENED}) == [SCREENED] * 4


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 2},
        {"do_sample": True},
        {"repetition_penalty": 1.5},
        {"top_logprobs": MOST_OF_SCREENED + 1},
        {"target_token_ids": (5, 6, 7, 0)},
    ],
    ids=lambda options: next(iter(options)),
)
def test_whoever_needs_more_does_not(options: dict[str, Any]) -> None:
    """More rows, all logits, or more tokens than a screening is for."""
    found = screened(options)
    assert found
    assert not any(found)


def test_rows_side_by_side_do_not() -> None:
    """Until one of them is left."""
    found = screened({"max_new_tokens": 2}, {})
    assert found == [0, 0, SCREENED, SCREENED]


def test_a_step_that_cannot_is_not_asked_to() -> None:
    """One that lacks the input gets none."""
    assert screened({}, can_screen=False) == []

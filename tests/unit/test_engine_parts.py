"""Batches cut into parts, so that less is padded."""

from __future__ import annotations

import math
from functools import partial
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regard.config import EngineSettings
from regard.engine.classifier import Classifier
from regard.engine.forecast import Pace
from regard.engine.observer import SilentObserver
from regard.engine.parts import LEAST_OVERHEAD, part_ends
from regard.engine.request import Classification, ClassifyRequest, Event
from regard.engine.scheduler import Scheduler
from regard.engine.source import Tokens
from regard.engine.ticket import Ticket
from regard.errors import RegardError
from regard.manifest import Task
from regard.testing import FakeClock, FakeSession

from .packages import manifest_of


def cost(lengths: list[int], ends: list[int], overhead: float) -> float:
    """Return the padded tokens of the parts, and what each costs beside them."""
    return sum(overhead + lengths[begin] * (end - begin) for begin, end in pairwise([0, *ends]))


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=9),
    st.one_of(st.floats(LEAST_OVERHEAD, 200.0), st.just(math.inf)),
)
def test_no_cuts_cost_less(lengths: list[int], overhead: float) -> None:
    """Of all ways to cut a batch."""
    lengths.sort(reverse=True)
    count = len(lengths)
    ways = [[*cuts, count] for size in range(count) for cuts in combinations(range(1, count), size)]
    ends = part_ends(lengths, overhead)
    assert ends in ways
    assert cost(lengths, ends, overhead) == min(cost(lengths, way, overhead) for way in ways)


def test_what_costs_nothing_is_not_believed() -> None:
    """Noise may make runs look as if only their tokens took time: then parts of a token's difference are not made."""
    assert part_ends([12, 11, 10], 0.0) == [3]
    assert part_ends([30, 11, 10], 0.0) == [1, 3]


def test_a_pace_knows_what_a_run_costs_beside_its_amount() -> None:
    """A millisecond, and a tenth for each token: ten tokens. Runs of one amount tell nothing of it."""
    pace = Pace(1.0)
    assert pace.overhead == math.inf
    for _ in range(3):
        pace.saw(100, 11.0)
    assert pace.overhead == math.inf
    pace.saw(50, 6.0)
    assert pace.overhead == pytest.approx(10)
    assert pace.seconds(200) == pytest.approx(21)


def test_a_pace_that_does_not_depend_on_the_amount_is_all_overhead() -> None:
    """As on a device that is hardly busy: nothing is saved by cutting."""
    pace = Pace(1.0)
    for amount in (10, 20, 30):
        pace.saw(amount, 5.0)
    assert part_ends([500, 1], pace.overhead) == [2]


def test_parts_are_answered_each_for_itself() -> None:
    """Once the graph's pace is known, lengths that are far apart are run apart; everyone hears their own answer."""
    clock, runs = FakeClock(), list[tuple[int, int]]()

    def classify(feeds: dict[str, Any]) -> dict[str, Any]:
        tokens = feeds["input_ids"]
        clock.now += 0.001 + 0.0001 * tokens.size
        runs.append(tokens.shape)
        return {"logits": tokens[:, :1].astype(np.float32)}

    settings = EngineSettings()
    scheduler = Scheduler(settings)
    graphs = {"classifier": FakeSession(classify, ["input_ids"])}
    engine = Classifier(manifest_of(Task.CLASSIFICATION), graphs, scheduler, settings, clock, SilentObserver())
    heard: dict[int, Event | RegardError] = {}

    def ask(lengths: list[int]) -> None:
        for first, length in enumerate(lengths):
            source = Tokens(np.array([first] + [9] * (length - 1)))
            scheduler.submit(Ticket(ClassifyRequest(source), partial(heard.__setitem__, first), clock()))
        engine.step()

    ask([60, 5, 58, 5])
    assert runs == [(4, 60)]
    ask([30])
    ask([60, 5, 58, 5])
    assert runs[2:] == [(2, 60), (2, 5)]
    for first in range(4):
        answer = heard[first]
        assert isinstance(answer, Classification)
        assert answer.output.tolist() == [first]
    assert scheduler.running == 0

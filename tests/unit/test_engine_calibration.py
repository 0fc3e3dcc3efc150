"""How a split of the cores among instances is chosen: by scripted figures, without a thread or a real clock."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from regard.engine.calibration import BUDGET_S, LEAST_GAIN, ROUNDS, Calibration, calibrate
from regard.engine.instances import Sessions
from regard.engine.splits import Split, splits_of
from regard.errors import EngineError, OutOfMemoryError, PackageError
from regard.manifest import Task
from regard.testing import FakeClock

ONE, TWO, FOUR = Split(1, 4), Split(2, 2), Split(4, 1)
Figure = float | Exception


@dataclass(eq=False)
class Scripted:
    """A split that serves as it is told to, round by round; the last figure stays."""

    split: Split
    figures: Sequence[Figure]
    served: list[Split]
    clock: FakeClock
    sessions: Sessions = field(default_factory=dict)
    round: int = 0

    def serve(self) -> float:
        """Return the round's figure, a second later."""
        self.clock.advance(1)
        self.served.append(self.split)
        figure = self.figures[min(self.round, len(self.figures) - 1)]
        self.round += 1
        if isinstance(figure, Exception):
            raise figure
        return figure


class Machine:
    """Splits of given figures; an error in the place of figures is raised when the split is loaded."""

    def __init__(self, script: Mapping[Split, Sequence[Figure] | Exception], *, loading_s: float = 0.0) -> None:
        self.script = script
        self.loading_s = loading_s
        self.clock = FakeClock()
        self.served: list[Split] = []
        self.loaded: list[weakref.ref[Scripted]] = []
        self.most_loaded = 0

    def enter(self, split: Split) -> Scripted:
        """Load a split."""
        self.clock.advance(self.loading_s)
        figures = self.script[split]
        if isinstance(figures, Exception):
            raise figures
        contender = Scripted(split, figures, self.served, self.clock)
        self.loaded.append(weakref.ref(contender))
        self.most_loaded = max(self.most_loaded, sum(one() is not None for one in self.loaded))
        return contender

    def calibrate(self) -> Calibration:
        """Let all splits stand against each other."""
        return calibrate(self.script, self.enter, self.clock)


def chosen(script: Mapping[Split, Sequence[Figure] | Exception]) -> Split:
    """Return the split that wins."""
    return Machine(script).calibrate().winner.split


@pytest.mark.parametrize(
    ("threads", "splits"),
    [
        (1, [(1, 1)]),
        (2, [(1, 2), (2, 1)]),
        (6, [(1, 6), (2, 3), (6, 1)]),
        (7, [(1, 7), (2, 3), (7, 1)]),
        (16, [(1, 16), (2, 8), (4, 4), (8, 2), (16, 1)]),
        (128, [(1, 128), (2, 64), (4, 32), (8, 16), (16, 8), (32, 4), (64, 2)]),
    ],
)
def test_splits_leave_few_cores_idle(threads: int, splits: list[tuple[int, int]]) -> None:
    """Threads are halved, instances take what there is, and there are no more of them than the setting allows."""
    assert splits_of(threads) == splits


def test_the_split_that_serves_most_is_chosen() -> None:
    """Wherever it stands among the candidates."""
    assert chosen({ONE: [100], TWO: [150], FOUR: [120]}) == TWO
    assert chosen({ONE: [100], TWO: [90], FOUR: [120]}) == FOUR
    assert chosen({ONE: [100], TWO: [90], FOUR: [80]}) == ONE


def test_more_instances_must_be_faster_by_a_margin() -> None:
    """A tie, and less than the margin, goes to the fewer instances: they have more threads for a lone request."""
    assert chosen({ONE: [100], TWO: [100]}) == ONE
    assert chosen({ONE: [100], TWO: [100 * LEAST_GAIN]}) == ONE
    assert chosen({ONE: [100], TWO: [101 * LEAST_GAIN]}) == TWO


def test_the_best_round_counts() -> None:
    """What disturbs a round, such as another process or the first use of a graph, only slows it."""
    assert chosen({ONE: [100], TWO: [20, 150, 30]}) == TWO
    assert chosen({ONE: [20, 30, 150], TWO: [100]}) == ONE


def test_two_splits_take_turns() -> None:
    """So a machine that grows slower, or faster, does so for both."""
    machine = Machine({ONE: [100], TWO: [200]})
    machine.calibrate()
    assert machine.served == [ONE, TWO] * ROUNDS


def test_no_more_than_two_splits_are_loaded_at_a_time() -> None:
    """Whichever lost is freed before the next one is loaded, and only the winner is kept."""
    machine = Machine({ONE: [100], TWO: [150], FOUR: [120], Split(8, 1): [130]})
    calibration = machine.calibrate()
    assert machine.most_loaded == 2
    assert [one() for one in machine.loaded if one() is not None] == [calibration.winner]


def test_a_split_that_cannot_be_loaded_is_passed_over() -> None:
    """The figures tell why, and the others are measured."""
    calibration = Machine({ONE: [100], TWO: PackageError("no memory"), FOUR: [200]}).calibrate()
    assert calibration.winner.split == FOUR
    assert calibration.figures == {ONE: 100, TWO: "failed: no memory", FOUR: 200}


def test_what_keeps_the_first_split_from_being_loaded_is_raised() -> None:
    """It is what keeps the model from being served."""
    with pytest.raises(PackageError, match="export it again"):
        chosen({ONE: PackageError("export it again"), TWO: [100]})


@pytest.mark.parametrize(
    ("script", "winner"),
    [
        ({ONE: [100], TWO: [300, EngineError("it broke")], FOUR: [110]}, FOUR),
        ({ONE: [EngineError("it broke")], TWO: [1]}, TWO),
        ({ONE: [EngineError("it broke")], TWO: [OutOfMemoryError("so did it")], FOUR: [1]}, FOUR),
        ({ONE: [EngineError("it broke")], TWO: [EngineError("it broke")]}, ONE),
    ],
    ids=["a later one", "the first", "the first two", "all"],
)
def test_a_split_that_fails_at_work_does_not_win(
    script: Mapping[Split, Sequence[Figure] | Exception], winner: Split
) -> None:
    """However fast it was before; where none works the first is taken, as without a calibration."""
    assert chosen(script) == winner


def test_the_budget_ends_the_rounds_and_then_the_splits() -> None:
    """Once the time is up, a round that is due is the last, and no further split is loaded."""
    machine = Machine({ONE: [100], TWO: [200], FOUR: [400]}, loading_s=BUDGET_S - 1)
    calibration = machine.calibrate()
    assert machine.served == [ONE, TWO]
    assert calibration.winner.split == TWO
    assert calibration.figures == {ONE: 100, TWO: 200, FOUR: "not tried"}


@pytest.mark.parametrize(
    ("task", "told"),
    [
        (Task.TRANSLATION, "1 x 4 threads 812 tokens/s, 2 x 2 threads 1,020 tokens/s, 4 x 1 thread failed: no memory"),
        (
            Task.CLASSIFICATION,
            "1 x 4 threads 812 inputs/s, 2 x 2 threads 1,020 inputs/s, 4 x 1 thread failed: no memory",
        ),
    ],
)
def test_every_figure_is_told_in_one_line(task: Task, told: str) -> None:
    """With its unit, and what went wrong in the place of a figure."""
    calibration = Machine({ONE: [812.4], TWO: [1020.3], FOUR: PackageError("no memory")}).calibrate()
    assert calibration.told(task) == told


def test_slow_figures_keep_their_digits() -> None:
    """A large model may serve less than one a second."""
    assert Machine({ONE: [0.25], TWO: [3.14159]}).calibrate().told(Task.CAPTIONING) == (
        "1 x 4 threads 0.25 tokens/s, 2 x 2 threads 3.14 tokens/s"
    )


def test_where_there_is_nothing_to_choose_nothing_is_measured() -> None:
    """A single candidate wins at once, and there is no figure."""
    machine = Machine({ONE: [100]})
    calibration = machine.calibrate()
    assert (calibration.winner.split, calibration.told(Task.TRANSLATION), machine.served) == (ONE, "", [])

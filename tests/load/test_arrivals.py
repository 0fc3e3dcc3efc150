from __future__ import annotations

import itertools
import statistics

import pytest

from load_tests.arrivals import PoissonArrivals


class Clock:
    """A clock that is set by hand, in seconds."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        """Return what it was set to."""
        return self.now_s


def starts(rate_per_s: float, seed: int, count: int) -> list[float]:
    """Return when the first requests are due."""
    arrivals = PoissonArrivals(rate_per_s, seed, Clock())
    return [arrivals.take() for _ in range(count)]


def test_a_seed_lays_the_starts_down():
    """The same seed gives the same starts, another one others."""
    assert starts(20, 1, 50) == starts(20, 1, 50)
    assert starts(20, 1, 50) != starts(20, 2, 50)


def test_the_first_request_is_due_at_once():
    """The process begins with a request."""
    assert starts(20, 1, 1) == [100.0]


def test_gaps_are_those_of_a_poisson_process():
    """Gaps are 1 / rate on average, spread as widely as that, and don't depend on the gaps before them."""
    gaps = [later - earlier for earlier, later in itertools.pairwise(starts(20, 1, 20_001))]
    assert statistics.mean(gaps) == pytest.approx(1 / 20, rel=0.03)
    assert statistics.stdev(gaps) == pytest.approx(1 / 20, rel=0.03)
    assert statistics.correlation(gaps[:-1], gaps[1:]) == pytest.approx(0, abs=0.03)


def test_a_busy_client_moves_no_start():
    """A client that was held up finds its requests due in the past, so that their wait is counted."""
    clock = Clock()
    arrivals, undisturbed = PoissonArrivals(20, 1, clock), starts(20, 1, 80)
    assert arrivals.take() == undisturbed[0]
    assert arrivals.wait_s() == pytest.approx(undisturbed[1] - 100.0)
    clock.now_s = 102.0
    late = list(itertools.takewhile(lambda due_s: due_s < 102.0, undisturbed[1:]))
    assert len(late) > 20
    for due_s in late:
        assert arrivals.wait_s() == 0
        assert arrivals.take() == due_s
    assert arrivals.wait_s() == pytest.approx(undisturbed[1 + len(late)] - 102.0)


@pytest.mark.parametrize("rate_per_s", [0.0, -1.0, float("nan")])
def test_a_rate_that_is_none_is_refused(rate_per_s):
    """Without a rate above 0 nothing would ever be due."""
    with pytest.raises(ValueError, match="must be above 0"):
        PoissonArrivals(rate_per_s, 1)

"""What observers keep to themselves, and when it is told."""

from __future__ import annotations

import pytest

from regard.metrics import Metrics

RUNS = "regard_run_rows_count"


@pytest.mark.parametrize("runs", [1, 63, 64, 200])
def test_every_run_is_told_to_whoever_reads(runs: int) -> None:
    """However many came since the last time; rows and padded tokens with them."""
    metrics = Metrics()
    observer = metrics.observer("m", "1")
    for _ in range(2):
        for _ in range(runs):
            observer.ran("step", 3, 5, 0.001)
    labels = {"model": "m", "version": "1", "graph": "step"}
    told = {name: metrics.registry.get_sample_value(name, labels) for name in (RUNS, "regard_run_padded_tokens_total")}
    assert told == {RUNS: 2 * runs, "regard_run_padded_tokens_total": 2 * runs * 5}


def test_whoever_reads_one_metric_is_told_as_much() -> None:
    """As a scrape of some names, `?name[]=`, does."""
    metrics = Metrics()
    for version in ("1", "2"):
        metrics.observer("m", version).ran("step", 3, 5, 0.001)
    (metric,) = metrics.registry.restricted_registry([RUNS]).collect()
    assert [sample.value for sample in metric.samples] == [1.0, 1.0]


def test_an_observer_records_by_itself_when_it_has_kept_many() -> None:
    """So that nobody's reading takes long."""
    observer = Metrics().observer("m", "1")
    for _ in range(200):
        observer.ran("step", 1, 1, 0.001)
        assert len(observer._kept) < 64

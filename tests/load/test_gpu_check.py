"""What `make gpu-check` says where there is no GPU, and what holds and what doesn't."""

from __future__ import annotations

import datetime
import sys
import time
from pathlib import Path

import pytest

from load_tests.gpu import check, course
from load_tests.gpu.course import Course
from load_tests.gpu.part import measure
from load_tests.peers.results import Figure


def test_without_a_gpu_it_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It isn't a failure, and nothing is claimed to have been checked."""
    monkeypatch.setattr(sys, "argv", ["check"])
    monkeypatch.setattr(check, "gpu", lambda: None)
    assert check.main() == 0
    assert capsys.readouterr().out == "gpu-check: there is no GPU here; nothing was checked\n"


@pytest.mark.parametrize(
    ("value", "bar", "limits", "holds"),
    [
        (1e-5, 1e-4, True, True),
        (2e-4, 1e-4, True, False),
        (float("inf"), 1e-4, True, False),
        (float("nan"), 1e-4, True, False),
        (1.0, 0.99, False, True),
        (0.98, 0.99, False, False),
        (float("nan"), 0.99, False, False),
        (12.0, None, False, None),
    ],
)
def test_a_difference_is_small_and_a_share_is_large_enough(
    value: float, bar: float | None, limits: bool, holds: bool | None
) -> None:
    """Differences have an upper bar, everything else a lower one; a mere figure has none."""
    assert Figure("figure", "unit", [value], bar, limits).holds is holds


def test_a_part_that_fails_or_is_late_is_told_and_ends_no_other() -> None:
    """A part that doesn't exist leaves its last words; one without time isn't begun; neither is sound."""
    late = check.Check("cpu", quick=True, ends_at=0)
    late.run(["service"], ends_at=0)
    assert late.failures == {"service": "not begun: the time was up"}
    wrong = check.Check("cpu", quick=True, ends_at=float("inf"))
    wrong.run(["parity", "nobody", "fp32"], ends_at=time.monotonic() + 60)
    assert "nobody" in wrong.failures["parity nobody fp32"]
    assert not late.sound
    assert not wrong.sound


@pytest.mark.parametrize(("model", "compared"), [("bert-base", "logits"), ("marian-base", "log-probabilities")])
def test_a_rehearsal_compares_and_measures(
    model: str, compared: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the CPU, with tiny models: what a GPU is given can be asked for and compared."""
    monkeypatch.setattr(course, "WORKSPACE", tmp_path)
    rehearsal = Course("cpu", quick=True)
    figures = {figure.name: figure for figure in measure(rehearsal, "parity", [model, "fp32"])}
    assert figures[f"{model}, fp32: {compared}"].holds
    assert all(figure.holds is not False for figure in figures.values())
    rates = {figure.name: figure.median for figure in measure(rehearsal, "throughput", [model])}
    assert rates[f"{model}, fp32, 4 at a time: engine"] > 0
    assert rates[f"{model}, fp32, 4 at a time: transformers"] > 0


def test_a_record_is_named_by_device_and_day() -> None:
    """In letters that every file system takes."""
    assert check.record_name("NVIDIA H100 80GB HBM3", datetime.date(2026, 11, 21)) == "NVIDIA-H100-80GB-HBM3-2026-11-21"

"""What `make gpu-check` says where there is no GPU, and what holds and what doesn't."""

from __future__ import annotations

import datetime
import sys

import pytest

from load_tests.gpu import check
from load_tests.gpu.findings import Finding


def test_without_a_gpu_it_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It isn't a failure, and nothing is claimed to have been checked."""
    monkeypatch.setattr(sys, "argv", ["check"])
    monkeypatch.setattr(check, "gpu", lambda: None)
    assert check.main() == 0
    assert capsys.readouterr().out == "gpu-check: there is no GPU here; nothing was checked\n"


@pytest.mark.parametrize(
    ("value", "unit", "bar", "holds"),
    [
        (1e-5, "difference", 1e-4, True),
        (2e-4, "difference", 1e-4, False),
        (float("inf"), "difference", 1e-4, False),
        (1.0, "share", 0.99, True),
        (0.98, "share", 0.99, False),
        (12.0, "tokens/s", None, None),
    ],
)
def test_a_difference_is_small_and_a_share_is_large_enough(
    value: float, unit: str, bar: float | None, holds: bool | None
) -> None:
    """Differences have an upper bar, everything else a lower one; a mere figure has none."""
    assert Finding("figure", value, unit, bar).holds is holds


def test_a_part_that_fails_or_is_late_is_told_and_ends_no_other() -> None:
    """A part that doesn't exist leaves its last words; one without time isn't begun; neither is sound."""
    late = check.Check("cpu", quick=True, ends_at=0)
    late.run(["service"], ends_at=0)
    assert late.failures == {"service": "not begun: the time was up"}
    wrong = check.Check("cpu", quick=True, ends_at=float("inf"))
    wrong.run(["parity", "nobody", "fp32"], ends_at=check.time.monotonic() + 60)
    assert "nobody" in wrong.failures["parity nobody fp32"]
    assert not late.sound
    assert not wrong.sound


def test_a_record_is_named_by_device_and_day() -> None:
    """In letters that every file system takes."""
    assert check.record_name("NVIDIA H100 80GB HBM3", datetime.date(2026, 11, 21)) == "NVIDIA-H100-80GB-HBM3-2026-11-21"

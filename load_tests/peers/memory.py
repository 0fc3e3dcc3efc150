"""The memory and the processor time of a process, as Linux tells them, and whether memory grows."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from pathlib import Path

GROWTH_BAR = 0.05
"""By what share the memory of a server may grow over 30,000 requests."""


def peak_bytes(pid: int | None = None) -> int:
    """Return the most memory that a process, by default this one, has held since it started."""
    return _field("VmHWM", pid)


def resident_bytes(pid: int | None = None) -> int:
    """Return the memory that a process holds now."""
    return _field("VmRSS", pid)


def processor_s(pid: int) -> float:
    """Return the processor time that a process has taken since it started, its own and the system's for it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # utime and stime: proc_pid_stat(5)


def growth(resident: Sequence[float]) -> float:
    """Return by what share memory has grown from the first to the last third of where it was watched, by their means.

    What is lost with every request tells in it. What a batch takes, and the C library keeps for a while or gives back,
    tells little in the mean of so many.
    """
    third = len(resident) // 3
    return statistics.fmean(resident[-third:]) / statistics.fmean(resident[:third]) - 1


def _field(name: str, pid: int | None) -> int:
    lines = Path(f"/proc/{os.getpid() if pid is None else pid}/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])

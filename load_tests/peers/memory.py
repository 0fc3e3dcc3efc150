"""The memory of a process, as Linux tells it."""

from __future__ import annotations

import os
from pathlib import Path


def peak_bytes(pid: int | None = None) -> int:
    """Return the most memory that a process, by default this one, has held since it started."""
    return _field("VmHWM", pid)


def resident_bytes(pid: int | None = None) -> int:
    """Return the memory that a process holds now."""
    return _field("VmRSS", pid)


def _field(name: str, pid: int | None) -> int:
    lines = Path(f"/proc/{os.getpid() if pid is None else pid}/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])

"""Prove and measure Regard on a GPU: `make gpu-check`. Without a GPU it says so and is done.

Each part runs in a process of its own, so that one that fails, hangs or spoils the GPU's memory takes
no other along: parity of every model in float32 and float16, several at a time; then the service
over gRPC; then speed, one after the other. What hasn't begun when the time is up is left out, and
told. Ends with 1 if a part failed or a figure misses its bar. `GPU="--provider cpu --quick"` rehearses
the script itself on the CPU, with tiny models.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from load_tests.peers.results import Figure, table_of, write

MODELS = ("demo-en-fr", "demo-intent", "demo-scenes", "bert-base", "vit-base", "marian-base")
MEASURED = ("marian-base", "bert-base", "vit-base")
RECORDS = Path("load_tests/results/gpu")
BUDGET_S = 450
SIDE_BY_SIDE = 4
PARITY_SHARE = 0.6
"""Of the time, for what can run side by side; the rest is for what must run alone."""

console = Console(width=None if sys.stdout.isatty() else 120)


@dataclass
class Check:
    """A run of the check, and what it has measured so far."""

    provider: str
    quick: bool
    ends_at: float
    figures: list[Figure] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)

    def run(self, part: Sequence[str], ends_at: float) -> None:
        """Run one part; keep its figures, or why it has none."""
        name = " ".join(part)
        left_s = ends_at - time.monotonic()
        if left_s <= 0:
            self.failures[name] = "not begun: the time was up"
            return
        started = time.monotonic()
        file = Path("build/gpu") / f"{'-'.join(part)}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        effort = "quick" if self.quick else "full"
        command = [sys.executable, "-m", "load_tests.gpu.part", str(file), self.provider, effort, *part]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=left_s, check=False)
        except subprocess.TimeoutExpired:
            self.failures[name] = f"given up after {left_s:.0f} s"
            return
        if done.returncode != 0 or not file.exists():
            words = done.stderr.strip().splitlines()
            self.failures[name] = words[-1][-400:] if words else f"ended with {done.returncode}"
            file.with_suffix(".log").write_text(done.stdout + done.stderr)
        else:
            self.figures += [Figure(**found) for found in json.loads(file.read_text())]
        console.print(f"{name}: {time.monotonic() - started:.0f} s")

    def run_all(self) -> None:
        """Run every part, the most telling first."""
        started = time.monotonic()
        half_time = started + PARITY_SHARE * (self.ends_at - started)
        precisions = ("fp32",) if self.provider == "cpu" else ("fp16", "fp32")
        with ThreadPoolExecutor(min(SIDE_BY_SIDE, max(1, len(os.sched_getaffinity(0)) // 2))) as pool:
            for precision in precisions:
                for model in MODELS:
                    pool.submit(self.run, ["parity", model, precision], half_time)
        self.run(["service"], self.ends_at)
        for model in MEASURED:
            self.run(["throughput", model], self.ends_at)

    @property
    def sound(self) -> bool:
        """Whether every part ran and every figure meets its bar."""
        return not self.failures and all(each.holds is not False for each in self.figures)


def main() -> int:
    """Check, print the table and write the results; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--provider", choices=["cuda", "cpu"], default="cuda", help="cpu only rehearses the script")
    parser.add_argument("--quick", action="store_true", help="tiny models and few requests")
    parser.add_argument("--budget", type=float, default=BUDGET_S, help="seconds for all of it (default: %(default)s)")
    arguments = parser.parse_args()
    device = gpu()
    if arguments.provider == "cuda" and device is None:
        console.print("gpu-check: there is no GPU here; nothing was checked")
        return 0
    check = Check(arguments.provider, arguments.quick, time.monotonic() + arguments.budget)
    check.run_all()
    console.print(table_of(check.figures, f"on {device or 'the CPU, a rehearsal'}"))
    for part, why in check.failures.items():
        console.print(f"[red]{part} failed:[/red] {escape(why)}", soft_wrap=True)
    rehearses = arguments.provider == "cpu"
    name = "gpu-check-rehearsal" if rehearses else "gpu-check"
    file = write(name, check.figures, gpu=device, failures=check.failures)
    console.print(f"written to {file}")
    if not rehearses and not arguments.quick:
        RECORDS.mkdir(parents=True, exist_ok=True)
        record = RECORDS / f"{record_name(str(device), datetime.date.today())}.json"
        console.print(f"and to {shutil.copy(file, record)}")
    return 0 if check.sound else 1


def gpu() -> str | None:
    """Return the name of the GPU that PyTorch sees; None if there is none, or no PyTorch."""
    try:
        import torch
    except ImportError:
        return None
    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


def record_name(device: str, day: datetime.date) -> str:
    """Return the name of a record's file, without its suffix: `NVIDIA-H100-80GB-HBM3-2026-11-21`."""
    return f"{re.sub('[^A-Za-z0-9]+', '-', device).strip('-')}-{day.isoformat()}"


if __name__ == "__main__":
    sys.exit(main())

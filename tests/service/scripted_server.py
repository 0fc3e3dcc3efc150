"""`regard serve` as a process, with scripted workers in place of models.

`--hold` first keeps them from ending, `--slow` from being loaded at once: each tells the log when that begins.
"""

import sys
import time

import structlog
import typer
from scripted_worker import ScriptedWorker

import regard.worker
from regard.cli.serve import serve
from regard.config import EngineSettings
from regard.manifest import Package
from regard.metrics import ModelObserver

HOLD, SLOW = sys.argv[1] == "--hold", sys.argv[1] == "--slow"
LOADING_S = 1.0


class SlowWorker(ScriptedWorker):
    """One that takes its time to load."""

    def start(self) -> None:
        """Tell the log, and be ready in a while."""
        structlog.get_logger().info("loading", model=self.package.manifest.name)
        time.sleep(LOADING_S)
        super().start()


def worker_of(package: Package, settings: EngineSettings, observer: ModelObserver) -> ScriptedWorker:
    """Return a scripted worker where `serve` makes a real one."""
    worker = (SlowWorker if SLOW else ScriptedWorker)(package, observer)
    if HOLD:
        worker.steps.clear()
    return worker


if HOLD or SLOW:
    del sys.argv[1]
regard.worker.Worker = worker_of  # type: ignore[assignment, misc]
typer.run(serve)

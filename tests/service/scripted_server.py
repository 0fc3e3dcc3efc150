"""`regard serve` as a process, with scripted workers in place of models; `--hold` first keeps them from ending."""

import sys

import typer
from scripted_worker import ScriptedWorker

import regard.worker
from regard.cli.serve import serve
from regard.config import EngineSettings
from regard.manifest import Package
from regard.metrics import ModelObserver

HOLD = sys.argv[1] == "--hold"


def worker_of(package: Package, settings: EngineSettings, observer: ModelObserver) -> ScriptedWorker:
    """Return a scripted worker where `serve` makes a real one."""
    worker = ScriptedWorker(package, observer)
    if HOLD:
        worker.steps.clear()
    return worker


if HOLD:
    del sys.argv[1]
regard.worker.Worker = worker_of  # type: ignore[assignment, misc]
typer.run(serve)

"""A server whose engine can also be asked without a call, in the same process: the call is all that differs then.

Medians of ten turns of five processes of one engine were up to 5 % apart (Marian's base shape in int8), which is as
much as a call costs. `python -m load_tests.peers.hosting MODELS INSTANCES THREADS` is that process: it writes its port,
and then takes from its input what its engine is to translate.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from load_tests.peers.contestants.engine import translate
from load_tests.peers.sources import Source
from regard.catalog import load_catalog
from regard.config import EngineSettings, ServerSettings
from regard.log import configure_logging
from regard.manifest import Package
from regard.metrics import Metrics
from regard.rpc.server import Server
from regard.worker import Worker


class Host:
    """Such a server of the one model in a directory, on free ports; ended by `stop`."""

    def __init__(self, models: Path, *, instances: int, threads: int) -> None:
        """Start it. Raise `RuntimeError` if it ends before it serves."""
        command = [sys.executable, "-m", __spec__.name, str(models), str(instances), str(threads)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.target = f"127.0.0.1:{self._told()}"

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self._process.pid

    def translate(self, sources: Sequence[Source], concurrency: int, beams: int = 1) -> list[int]:
        """Let its engine translate, without a call."""
        assert self._process.stdin is not None
        pickle.dump((sources, concurrency, beams), self._process.stdin)
        self._process.stdin.flush()
        counts: list[int] = self._told()
        return counts

    def stop(self) -> None:
        """Let it drain and go down. Raise `RuntimeError` if it doesn't end well."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        if self._process.wait() != 0:
            raise RuntimeError(f"the server ended with {self._process.returncode}")

    def _told(self) -> Any:
        assert self._process.stdout is not None
        try:
            return pickle.load(self._process.stdout)
        except EOFError:
            raise RuntimeError(f"the server ended with {self._process.wait()}") from None


async def serve(settings: ServerSettings, questions: BinaryIO, answers: BinaryIO) -> None:
    """Serve, and answer what is asked of the engine, until there are no more questions."""

    def tell(answer: object) -> None:
        pickle.dump(answer, answers)
        answers.flush()

    metrics = Metrics()

    def worker_of(package: Package) -> Worker:
        observer = metrics.observer(package.manifest.name, package.manifest.version)
        return Worker(package, settings.engine, observer)

    catalog = load_catalog(settings.models, worker_of)
    server = Server(settings, catalog, metrics)
    try:
        await server.start()
        tell(server.grpc_port)
        while (question := await asyncio.to_thread(_read, questions)) is not None:
            tell(await translate(catalog.models[0].worker, *question))
    finally:
        await server.stop()


def _read(questions: BinaryIO) -> tuple[Sequence[Source], int, int] | None:
    try:
        question: tuple[Sequence[Source], int, int] = pickle.load(questions)
    except EOFError:
        return None
    return question


def main() -> None:
    """Serve the model and the engine that the command names."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no answer
    models, instances, threads = sys.argv[1:]
    engine = EngineSettings(instances=int(instances), intra_op_threads=int(threads))
    settings = ServerSettings(models=(Path(models),), grpc_port=0, http_port=0, log_level="warning", engine=engine)
    configure_logging(settings)
    asyncio.run(serve(settings, sys.stdin.buffer, answers))


if __name__ == "__main__":
    main()

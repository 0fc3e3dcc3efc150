"""The packages of a models directory, behind a real server in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

from regard.client import Client, Failure, Model


@contextmanager
def serving(models: Path, *settings: str) -> Iterator[str]:
    """Yield the address of a server of every package below `models`, with more `settings`, and end it afterwards."""
    command = [sys.executable, "-m", "regard.cli", "serve", "--models", str(models)]
    command += ["--grpc-port", "0", "--http-port", "0", "--log-format", "json", *settings]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        port = _port_of(process.stderr)
        Thread(target=process.stderr.read, daemon=True).start()  # keeps the pipe from filling
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


@contextmanager
def served(models: Path, timeout_s: float = 3600) -> Iterator[Client]:
    """Yield a client of a server that serves every package below `models`, and end the server afterwards."""
    with serving(models) as address, Client(address, timeout_s=timeout_s) as client:
        yield client


def _port_of(log: Iterator[str]) -> int:
    lines = []
    for line in log:
        lines.append(line)
        if line.startswith("{") and (entry := json.loads(line)).get("event") == "serving":
            return int(entry["grpc_port"])
    raise SystemExit(f"the server ended before it served:\n{''.join(lines[-20:])}")


def packages_of(checkpoint: str, models: Sequence[Model]) -> dict[str, Model]:
    """Return the packages of a checkpoint by what they are, which follows its name in theirs.

    NAME is called by its precision, NAME-int8 `int8`, NAME-int8-token `int8 by token`.
    """
    names = {f"{checkpoint}-{kind}": kind for kind in ("fp32", "fp16", "int8")}
    names |= {f"{checkpoint}-int8-token": "int8 by token"}
    found = {one.name: one for one in models if one.name == checkpoint or one.name in names}
    return {names.get(name, one.precision): one for name, one in found.items()}


def whole(answers: Sequence[object]) -> None:
    """End the evaluation if an answer is a failure: quality is that of all answers."""
    failures = [answer for answer in answers if isinstance(answer, Failure)]
    if failures:
        raise SystemExit(f"{len(failures)} of {len(answers)} answers failed; the first: {failures[0].message}")

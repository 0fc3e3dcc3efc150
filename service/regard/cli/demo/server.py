"""A server in a process of its own, for as long as a block of code lasts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from regard.errors import ConfigurationError

_READY_WITHIN_S = 60.0
_STOPPED_WITHIN_S = 30.0
_POLL_S = 0.05


@dataclass
class ServerProcess:
    """A running server: where it answers and, once it has stopped, how it ended."""

    process: subprocess.Popen[bytes]
    grpc_port: int
    http_port: int

    @property
    def target(self) -> str:
        """What a client connects to."""
        return f"localhost:{self.grpc_port}"

    @property
    def has_torch(self) -> bool | None:
        """Whether PyTorch is loaded in the process; None where the system doesn't tell."""
        try:
            return "libtorch" in Path(f"/proc/{self.process.pid}/maps").read_text()
        except OSError:
            return None

    @property
    def exit_code(self) -> int | None:
        """How the process ended; None while it runs, negative if a signal ended it."""
        return self.process.poll()

    def metrics(self) -> str:
        """Return what /metrics says."""
        return _get(f"http://127.0.0.1:{self.http_port}/metrics")


@contextmanager
def serving(models: Path, log: Path) -> Iterator[ServerProcess]:
    """Start a server of the packages in `models` on free ports; stop it with SIGTERM at the end.

    Its log goes to the file `log`. Raises `ConfigurationError`, with the log's last line, if it
    ends before it serves, and if it isn't ready within a minute.
    """
    command = [sys.executable, "-m", "regard.cli", "serve", "--models", str(models)]
    with log.open("wb") as written:
        process = subprocess.Popen(
            [*command, "--grpc-port", "0", "--http-port", "0", "--log-format", "json"],
            stdout=written,
            stderr=subprocess.STDOUT,
            env=os.environ | {"REGARD_LOG_LEVEL": "info"},
        )
    try:
        server = _when_ready(process, log)
        yield server
        process.send_signal(signal.SIGTERM)
        process.wait(_STOPPED_WITHIN_S)
    except subprocess.TimeoutExpired as error:
        raise ConfigurationError(f"the server did not stop within {_STOPPED_WITHIN_S:g} s of SIGTERM") from error
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _when_ready(process: subprocess.Popen[bytes], log: Path) -> ServerProcess:
    deadline = time.monotonic() + _READY_WITHIN_S
    while time.monotonic() < deadline:
        lines = log.read_text("utf-8", errors="replace").splitlines()
        if process.poll() is not None:
            last = lines[-1] if lines else f"exit code {process.returncode}"
            raise ConfigurationError(f"the server ended before it served: {last}")
        for line in lines:
            if '"serving"' in line:
                said = json.loads(line)
                server = ServerProcess(process, said["grpc_port"], said["http_port"])
                if _is_ready(server.http_port):
                    return server
        time.sleep(_POLL_S)
    raise ConfigurationError(f"the server was not ready within {_READY_WITHIN_S:g} s; {log} is its log")


def _is_ready(http_port: int) -> bool:
    try:
        _get(f"http://127.0.0.1:{http_port}/readyz")
    except urllib.error.URLError:
        return False
    return True


def _get(url: str) -> str:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(url, timeout=10) as response:
        content: bytes = response.read()
    return content.decode()

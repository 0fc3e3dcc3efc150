"""Servers in processes of their own: Regard's, and others."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from threading import Thread

STOP_TIMEOUT_S = 30


class Server:
    """`regard serve` on free ports; made when it serves, ended by `stop`."""

    def __init__(self, models: Path, *, instances: int, threads: int, settings: Sequence[str] = ()) -> None:
        """Start it, with more `settings` as its command takes them.

        Raise `RuntimeError`, with the last of its log, if it ends before it serves.
        """
        command = [sys.executable, "-m", "regard.cli", "serve", "--models", str(models)]
        command += ["--grpc-port", "0", "--http-port", "0", "--log-format", "json"]
        command += ["--instances", str(instances), "--intra-op-threads", str(threads), *settings]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self._last_lines: deque[str] = deque(maxlen=50)
        self.target = f"127.0.0.1:{self._wait_for_port()}"
        Thread(target=self._read_on, daemon=True).start()

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self._process.pid

    def _wait_for_port(self) -> int:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._last_lines.append(line)
            if line.startswith("{") and (entry := json.loads(line)).get("event") == "serving":
                return int(entry["grpc_port"])
        raise RuntimeError(f"the server ended with {self._process.wait()}:\n{''.join(self._last_lines)}")

    def _read_on(self) -> None:
        """Keep the pipe from filling."""
        assert self._process.stderr is not None
        self._last_lines.extend(self._process.stderr)

    def stop(self) -> None:
        """Ask it to drain and go down. Raise `RuntimeError` if it doesn't end well."""
        self._process.terminate()
        if self._process.wait(STOP_TIMEOUT_S) != 0:
            raise RuntimeError(f"the server ended with {self._process.returncode}:\n{''.join(self._last_lines)}")


def started(command: Sequence[str]) -> tuple[subprocess.Popen[str], str]:
    """Start a server that says its port on its output; return its process and its address.

    Raise `RuntimeError` if it ends before it serves.
    """
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    port = process.stdout.readline().strip()
    if not port:
        raise RuntimeError(f"{' '.join(command)} ended with {process.wait()}")
    return process, f"127.0.0.1:{port}"

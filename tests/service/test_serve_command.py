"""`regard serve` as a process: its line of ports, its signals, its exit codes."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from regard.manifest import Task
from regard.v1 import translation_pb2, translation_pb2_grpc

from .conftest import write_package
from .test_translation import CAT, request_of

SCRIPT = Path(__file__).parent / "scripted_server.py"
FREE_PORTS = ("--grpc-port", "0", "--http-port", "0")
PATIENCE_S = 60


class Process:
    """A server in a process of its own, whose log is read line by line."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, str(SCRIPT), *arguments]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    def until(self, event: str) -> dict[str, Any]:
        """Return the log's first line of that event."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            entry: dict[str, Any] = json.loads(line)
            if entry["event"] == event:
                return entry
        pytest.fail(f"the server ended before {event!r}")

    def rest(self) -> str:
        """Return what is left of standard error once the process has ended."""
        return self.process.communicate(timeout=PATIENCE_S)[1]


@contextmanager
def running(*arguments: str) -> Iterator[Process]:
    """Run a server and leave none behind."""
    started = Process(*arguments)
    try:
        yield started
    finally:
        started.process.kill()
        started.process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_server_in_good_order(models: Path, number: signal.Signals) -> None:
    """It says its ports in one line, serves there, and exits 0 once told to stop."""
    with running("--models", str(models), *FREE_PORTS) as server:
        line = server.until("serving")
        with grpc.insecure_channel(f"127.0.0.1:{line['grpc_port']}") as channel:
            stub = translation_pb2_grpc.TranslationServiceStub(channel)
            response = stub.Translate(request_of(CAT), timeout=PATIENCE_S)
        server.process.send_signal(number)
        rest = server.rest()

        assert line["models"] == ["echo/1", "sorter/1"]
        assert line["http_port"] != line["grpc_port"]
        assert response.results[0].translation.text == CAT
        assert server.process.returncode == 0
        assert "Traceback" not in rest


def test_a_second_signal_ends_a_drain_at_once(models: Path) -> None:
    """Whoever doesn't want to wait for the last request need not."""
    with running("--hold", "--models", str(models), *FREE_PORTS, "--drain-timeout", "600") as server:
        port = server.until("serving")["grpc_port"]
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = translation_pb2_grpc.TranslationServiceStub(channel)
            events = stub.StreamTranslate(translation_pb2.StreamTranslateRequest(texts=["", CAT]))
            next(events)
            server.process.send_signal(signal.SIGTERM)
            assert server.until("draining")["requests"] == 1
            server.process.send_signal(signal.SIGTERM)
            server.process.wait(timeout=PATIENCE_S)

        assert server.process.returncode == 128 + signal.SIGTERM


def test_a_damaged_package_ends_the_start(tmp_path: Path) -> None:
    """One line names the package and its file; nothing else is served."""
    write_package(tmp_path, "sorter", "1", Task.CLASSIFICATION)
    package = write_package(tmp_path, "echo", "1", Task.TRANSLATION)
    (package / "tokenizer.json").write_text("{}")

    assert_refused("package echo/1: tokenizer.json differs", "--models", str(tmp_path), *FREE_PORTS)


def test_a_taken_port_ends_the_start(models: Path) -> None:
    """The port is named; it is not shared with whoever has it."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = str(holder.getsockname()[1])

        assert_refused(f"gRPC port {port} of 127.0.0.1", "--models", str(models), "--grpc-port", port)


def test_a_wrong_setting_ends_the_start(models: Path) -> None:
    """The setting is named."""
    assert_refused("setting engine.max_rows", "--models", str(models), "--max-rows", "0")


def assert_refused(says: str, *arguments: str) -> None:
    """Check that the server exits with 2 and one line, and is gone."""
    with running(*arguments) as server:
        output = server.rest()

    messages = [line for line in output.splitlines() if line.startswith("regard: ")]
    assert server.process.returncode == 2
    assert len(messages) == 1
    assert says in messages[0]
    assert "Traceback" not in output

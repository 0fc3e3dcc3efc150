"""`regard serve` as a process: its line of ports, its signals, its exit codes."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from rich.console import Console

from regard.cli import serve
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


def test_a_server_outlives_calls_whose_paths_are_not_text(models: Path) -> None:
    """However many there are: it goes on, its pages are there, and it ends in good order."""
    with running("--models", str(models), *FREE_PORTS) as server:
        line = server.until("serving")
        reading = threading.Thread(target=lambda: server.rest(), daemon=True)
        reading.start()
        target, alone = f"127.0.0.1:{line['grpc_port']}", [("grpc.use_local_subchannel_pool", 1)]
        for _ in range(40):
            with grpc.insecure_channel(target, options=alone) as channel, suppress(grpc.RpcError):
                channel.unary_unary(b"/\xff")(b"", timeout=5)
            time.sleep(0.05)
            with urllib.request.urlopen(f"http://127.0.0.1:{line['http_port']}/metrics", timeout=PATIENCE_S) as page:
                assert page.status == 200
        with grpc.insecure_channel(target, options=alone) as channel:
            stub = translation_pb2_grpc.TranslationServiceStub(channel)
            response = stub.Translate(request_of(CAT), timeout=PATIENCE_S, wait_for_ready=True)
        server.process.send_signal(signal.SIGTERM)
        reading.join(PATIENCE_S)

        assert response.results[0].translation.text == CAT
        assert server.process.returncode == 0


def test_a_signal_while_models_load_ends_the_start(models: Path) -> None:
    """No other model is loaded, nothing is served, and the exit code is 0."""
    with running("--slow", "--models", str(models), *FREE_PORTS) as server:
        assert server.until("loading")["model"] == "echo"
        server.process.send_signal(signal.SIGTERM)
        rest = server.rest()

        assert [json.loads(line)["event"] for line in rest.splitlines()] == ["draining", "stopped"]
        assert server.process.returncode == 0


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


@pytest.mark.parametrize(
    ("host", "says"),
    [("nosuchhost.invalid", "the host is not known"), ("192.0.2.7", "the host is no address of this machine")],
)
def test_a_host_that_is_not_ours_ends_the_start(models: Path, host: str, says: str) -> None:
    """It is the host that is to blame, not the port."""
    assert_refused(f" of {host}: {says}", "--models", str(models), "--host", host, *FREE_PORTS)


def test_a_wrong_setting_ends_the_start(models: Path) -> None:
    """The setting is named."""
    assert_refused("setting engine.max_rows", "--models", str(models), "--max-rows", "0")


def test_the_panel_says_what_each_model_reads_and_where() -> None:
    """Sound has its seconds, a model of images and texts both, and an IPv6 address its brackets."""
    image = SimpleNamespace(width=224, height=224)
    shown = panel_of(
        {"name": "hearer", "audio": SimpleNamespace(window_s=30), "text": SimpleNamespace(max_source_tokens=None)},
        {"name": "matcher", "image": image, "text": SimpleNamespace(max_source_tokens=77)},
    )
    for words in (
        "sound, 30 s at a time",
        "images, as 224 x 224 pixels",
        "up to 77 tokens",
        " [fe80::1]:50051 ",
        " http://[fe80::1]:8080/metrics ",
        " http://[fe80::1]:8080/playground ",
    ):
        assert words in shown
    assert "None" not in shown


def test_the_panel_cuts_no_name() -> None:
    """A name that is too long for the screen goes on below."""
    shown = panel_of({"name": "a-model-with-a-very-long-name-" * 3})
    assert "…" not in shown


def panel_of(*manifests: dict[str, Any]) -> str:
    """Return the panel of a server at an IPv6 address, on a screen of 100 columns."""
    given: dict[str, Any] = {"version": "1", "task": Task.SIMILARITY, "precision": "fp32", "taps": []}
    nothing: dict[str, Any] = {"image": None, "audio": None, "text": None}
    models = [
        SimpleNamespace(manifest=SimpleNamespace(**given | nothing | one), worker=SimpleNamespace(provider="cpu"))
        for one in manifests
    ]
    settings: Any = SimpleNamespace(host="fe80::1", has_playground=True)
    server: Any = SimpleNamespace(grpc_port=50051, http_port=8080)
    catalog: Any = SimpleNamespace(models=models)
    console = Console(width=100, file=StringIO())
    console.print(serve._summary(settings, catalog, server))
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def assert_refused(says: str, *arguments: str) -> None:
    """Check that the server exits with 2 and one line, and is gone."""
    with running(*arguments) as server:
        output = server.rest()

    messages = [line for line in output.splitlines() if line.startswith("regard: ")]
    assert server.process.returncode == 2
    assert len(messages) == 1
    assert says in messages[0]
    assert "Traceback" not in output

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KINDS = [task + attention for task in ("translate", "classify", "caption") for attention in ("", " + attention")]

pytestmark = (
    pytest.mark.skipif(  # importing locust would replace the standard library's sockets and threads by gevent's
        importlib.util.find_spec("locust") is None, reason="locust isn't installed: pip install --group load"
    )
)


def load(models: Path, directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Load a server of `models` as `make load` does, for a shorter time."""
    command = [sys.executable, "-m", "load_tests.run", "--models", str(models)]
    command += ["--seconds", "2", "--users", "4", "--rate", "12", "--attention-share", "0.5", *options]
    return run(command, directory)


def run(command: list[str], directory: Path) -> subprocess.CompletedProcess[str]:
    """Run what may import locust in a process of its own, which writes into `directory`."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_a_load_test_asks_everything_of_a_real_server(packages, tmp_path):
    """Every kind is asked in both loops, nothing fails, and the reports and the table tell of it."""
    done = load(packages, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "build" / "load" / "report.html").read_text("utf-8")
    picture = ET.fromstring((tmp_path / "build" / "load" / "latency.svg").read_text("utf-8"))
    texts = {text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")}
    for kind in KINDS:
        assert kind in done.stdout
        assert json.dumps(kind) in page
        assert kind in texts
    assert "12 requests a second, at random" in texts
    assert "shared the same" in done.stdout
    measured = json.loads((tmp_path / "build" / "results" / "load.json").read_text())
    figures = {row["name"]: row["value"] for row in measured["rows"]}
    for kind, loop in itertools.product(KINDS, ("closed", "open")):
        assert figures[f"{loop} loop, {kind}: failures"] == 0
        assert 0 < figures[f"{loop} loop, {kind}: p50"] <= figures[f"{loop} loop, {kind}: p99"]


def test_a_failed_request_fails_the_load_test(packages, tmp_path):
    """Against a server that lacks a model, the process ends with 1 and names what failed by its gRPC status."""
    models = tmp_path / "models"
    models.mkdir()
    for name in ("demo-en-fr", "demo-intent"):
        (models / name).symlink_to(packages / name)
    done = load(models, tmp_path)
    assert done.returncode == 1
    assert "caption failed: NOT_FOUND" in done.stdout
    assert "translate failed" not in done.stdout


def test_a_kind_that_was_never_asked_fails_the_load_test(packages, tmp_path):
    """A load test that was too short to ask everything doesn't pass for one that did."""
    done = load(packages, tmp_path, "--rate", "0.001")
    assert done.returncode == 1
    assert "open loop: no request of the kind" in done.stdout


def test_without_packages_it_says_so(tmp_path):
    """Where there is nothing to serve, one line says why."""
    done = load(tmp_path / "nothing", tmp_path)
    assert done.returncode == 1
    assert "there is no server to load" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_waited_in_the_client_counts(tmp_path):
    """Requests that an open loop gets to make 5 s after they were due took 5 s and more, however fast the answer."""
    done = run([sys.executable, str(Path(__file__).with_name("overdue.py"))], tmp_path)
    assert done.returncode == 0, done.stderr
    times_ms = [float(line) for line in done.stdout.splitlines()]
    assert len(times_ms) == 3
    assert min(times_ms) > 4900  # at 1,000 a second, the third was due a few ms after the first

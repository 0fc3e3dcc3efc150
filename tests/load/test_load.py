from __future__ import annotations

import importlib.util
import json
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


def load(models: Path, output: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Load a server of `models` as `make load` does, for a shorter time."""
    command = [sys.executable, "-m", "load_tests.run", "--models", str(models), "--output", str(output)]
    command += ["--seconds", "2", "--users", "4", "--rate", "12", "--attention-share", "0.5", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_a_load_test_asks_everything_of_a_real_server(packages, tmp_path):
    """Every kind is asked in both loops, nothing fails, and the reports and the table tell of it."""
    done = load(packages, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "report.html").read_text("utf-8")
    picture = ET.fromstring((tmp_path / "latency.svg").read_text("utf-8"))
    texts = {text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")}
    for kind in KINDS:
        assert kind in done.stdout
        assert json.dumps(kind) in page
        assert kind in texts
    assert "12 requests a second, at random" in texts
    assert "the same" in done.stdout


def test_a_failed_request_fails_the_load_test(packages, tmp_path):
    """Against a server that lacks a model, the process ends with 1 and names what failed by its gRPC status."""
    models = tmp_path / "models"
    models.mkdir()
    for name in ("demo-en-fr", "demo-intent"):
        (models / name).symlink_to(packages / name)
    done = load(models, tmp_path / "load")
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

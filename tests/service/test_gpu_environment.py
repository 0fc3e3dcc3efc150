"""ONNX Runtime for GPUs on a machine without one: what a server refuses, and what it falls back to.

`make test-gpu-environment` makes the environment that these need, which can't be the tests' own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / "build" / "gpu-environment" / "bin" / "python"
PATIENCE_S = 60
INSTALL = "pip install 'regard[gpu]'"
PROBE = (
    "from regard.config import EngineSettings; from regard.engine.session import why_not;"
    "print([why_not(name, EngineSettings()) for name in ('cuda', 'tensorrt')])"
)


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """Return the variables that run this tree in the environment for GPUs, where it is and has no GPU."""
    if not PYTHON.exists():
        pytest.skip("there is no environment with onnxruntime-gpu: `make test-gpu-environment` makes it")
    variables = {**os.environ, "PYTHONPATH": str(ROOT / "service")}
    probed = subprocess.run([PYTHON, "-c", PROBE], capture_output=True, text=True, env=variables, check=True)
    if "None" in probed.stdout:
        pytest.skip("there is a GPU: `make gpu-check` proves more")
    return variables


def exported_for(packages: Path, directory: Path, *providers: str) -> Path:
    """Return a models directory with the demonstration classifier, as if it was exported for `providers`."""
    shutil.copytree(packages / "demo-intent", directory / "demo-intent")
    file = directory / "demo-intent" / "1" / "manifest.json"
    manifest = json.loads(file.read_text())
    for graph in manifest["graphs"].values():
        graph["providers"] = providers
    file.write_text(json.dumps(manifest))
    return directory


def serve(environment: dict[str, str], models: Path, provider: str) -> subprocess.Popen[str]:
    """Start a server with that provider."""
    command = [PYTHON, "-m", "regard.cli", "serve", "--models", models, "--provider", provider]
    options = ["--grpc-port", "0", "--http-port", "0", "--log-format", "json"]
    return subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True, env=environment)


def refusal(environment: dict[str, str], models: Path, provider: str) -> str:
    """Return the last line that a server says when it ends instead of serving."""
    process = serve(environment, models, provider)
    told = process.communicate(timeout=PATIENCE_S)[1]
    assert process.returncode == 2, told
    assert "Traceback" not in told
    return told.splitlines()[-1]


def until_it_serves(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """Return the log up to the line that tells the ports."""
    assert process.stderr is not None
    entries = []
    for line in process.stderr:
        entries.append(json.loads(line))
        if entries[-1]["event"] == "serving":
            return entries
    pytest.fail(f"the server ended:\n{entries}")


@pytest.mark.parametrize(("provider", "library"), [("cuda", "libcublasLt.so.13"), ("tensorrt", "libnvinfer.so.10")])
def test_a_provider_that_is_asked_for_and_not_there_is_an_error(
    environment: dict[str, str], packages: Path, tmp_path: Path, provider: str, library: str
) -> None:
    """The server doesn't start: it names the libraries and the extra to install."""
    models = exported_for(packages, tmp_path, provider, "cpu")

    told = refusal(environment, models, provider)

    assert told.startswith(f"regard: provider {provider} can't be had: ")
    assert library in told
    assert INSTALL in told


def test_a_package_for_cuda_alone_is_refused(environment: dict[str, str], packages: Path, tmp_path: Path) -> None:
    """Where every provider would do, none that this package could use is there: it is refused by name."""
    told = refusal(environment, exported_for(packages, tmp_path, "cuda"), "auto")

    assert told.startswith("regard: package demo-intent/1 is exported for cuda, and cuda can't be had: ")
    assert INSTALL in told


def test_a_package_for_the_cpu_is_refused_on_cuda(environment: dict[str, str], packages: Path, tmp_path: Path) -> None:
    """The message tells both ways out."""
    told = refusal(environment, exported_for(packages, tmp_path, "cpu"), "cuda")

    assert told.startswith("regard: package demo-intent/1 is exported for cpu, and provider cuda is asked for: ")
    assert "--target cuda" in told


def test_auto_falls_back_loudly(environment: dict[str, str], packages: Path, tmp_path: Path) -> None:
    """The server serves on the CPU; the log warns of each better provider, with the libraries that it lacks."""
    models = exported_for(packages, tmp_path, "tensorrt", "cuda", "cpu")
    process = serve(environment, models, "auto")
    try:
        log = until_it_serves(process)
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE_S)

    warnings = {entry["provider"]: entry["why"] for entry in log if entry["level"] == "warning"}
    assert warnings.keys() == {"tensorrt", "cuda"}
    assert "libnvinfer.so.10" in warnings["tensorrt"]
    assert "libcublasLt.so.13" in warnings["cuda"]
    (loaded,) = (entry for entry in log if entry["event"] == "graph loaded")
    assert loaded["nodes"].keys() == {"CPUExecutionProvider"}
    assert log[-1]["providers"] == ["CPUExecutionProvider"]

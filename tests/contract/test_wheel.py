"""The wheel in an environment of its own, as a server's image would have it: no torch, and it serves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
STOP_TIMEOUT_S = 30
PAGES = ("viewer/parts", "report/page", "report/frame", "rpc/playground/page")

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the wheel, built from the working tree."""
    output = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(output), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (built,) = output.glob("regard-*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the `bin` directory of an environment that holds the wheel with `[cpu]` alone."""
    directory = tmp_path_factory.mktemp("environment")
    venv.create(directory)
    pip = [sys.executable, "-m", "pip", "--python", str(directory / "bin" / "python"), "install", "-qq", "--no-compile"]
    pins = ["--constraint", str(ROOT / "constraints.txt")]
    subprocess.run([*pip, *pins, f"{wheel}[cpu]"], check=True)
    return directory / "bin"


@pytest.fixture(scope="module")
def server(environment: Path, packages: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Yield the process of the environment's own `regard serve`, and where it answers."""
    command = [environment / "regard", "serve", "--models", packages, "--grpc-port", "0", "--http-port", "0"]
    process = subprocess.Popen([*command, "--log-format", "json"], stderr=subprocess.PIPE, text=True, env=_clean())
    try:
        yield process, f"127.0.0.1:{_port_of(process)}"
    finally:
        process.kill()
        process.wait()


def test_wheel_holds_both_packages_and_nothing_else(wheel: Path) -> None:
    """The wheel has the service and the export, typed, and the pages' parts, but neither tests nor checkpoints."""
    names = zipfile.ZipFile(wheel).namelist()
    regard = ROOT / "service" / "regard"
    parts = [part for place in PAGES for part in (regard / place).iterdir()]

    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"regard", "regard_export"}
    assert {"regard/py.typed", "regard_export/py.typed", "regard/v1/translation_pb2.py"} <= set(names)
    assert {str(part.relative_to(ROOT / "service")) for part in parts} <= set(names)


def test_environment_has_no_torch(environment: Path) -> None:
    """Neither torch nor transformers can be imported where only `[cpu]` is installed."""
    look = "import importlib.util as u; print([n for n in ('torch', 'transformers', 'onnx') if u.find_spec(n)])"

    assert _run(environment / "python", "-c", look).strip() == "[]"


def test_server_translates(environment: Path, server: tuple[subprocess.Popen[str], str]) -> None:
    """The environment's own client gets a translation, with attention whose rows sum to 1."""
    answer = _answer(environment, "translate", "She is reading a book.", "--attention", server=server[1])

    assert answer["text"]
    assert answer["finish_reason"] == "end_of_sentence"
    sums = [sum(row) for tap in answer["attention"]["maps"] for head in tap["weights"] for row in head]
    assert sums
    assert sums == pytest.approx([1.0] * len(sums), abs=1e-4)


def test_server_classifies(environment: Path, server: tuple[subprocess.Popen[str], str]) -> None:
    """The environment's own client gets classes, the likeliest first."""
    answer = _answer(environment, "classify", "how do i change my pin number", server=server[1])

    probabilities = [each["probability"] for each in answer["classes"]]
    assert probabilities == sorted(probabilities, reverse=True)
    assert probabilities[0] > 0


def test_server_ends_well(server: tuple[subprocess.Popen[str], str]) -> None:
    """SIGTERM ends the server with exit code 0."""
    process, _ = server
    process.send_signal(signal.SIGTERM)

    _, log = process.communicate(timeout=STOP_TIMEOUT_S)

    assert process.returncode == 0, log


def _answer(environment: Path, command: str, text: str, *flags: str, server: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(
        _run(environment / "regard", command, text, "--json", "--server", server, *flags)
    )
    return answer


def _run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, env=_clean())
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _clean() -> dict[str, str]:
    """Return the environment's variables, without those through which other code could come in."""
    return {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV", "REGARD_"))
    }


def _port_of(process: subprocess.Popen[str]) -> int:
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if line.startswith("{") and (entry := json.loads(line)).get("event") == "serving":
            return int(entry["grpc_port"])
    pytest.fail(f"the server ended with {process.wait()}:\n{''.join(seen)}", pytrace=False)

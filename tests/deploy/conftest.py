"""The chart as Helm renders it, and servers that are started the way that it starts them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "regard"
VALUES_SETS = sorted((CHART / "ci").glob("*-values.yaml"))
Resource = dict[str, Any]


@dataclass(frozen=True)
class Chart:
    """The chart, and the Helm that renders it."""

    helm: Path

    def run(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Return how a command of Helm's on the chart ended."""
        return subprocess.run([self.helm, *command.split(), *arguments], capture_output=True, text=True, check=False)

    def render(self, *arguments: str) -> dict[str, Resource]:
        """Return the resources of a release `test`, by `Kind/name`."""
        done = self.run("template test", str(CHART), *arguments)
        assert done.returncode == 0, done.stderr
        resources = [resource for resource in yaml.safe_load_all(done.stdout) if resource]
        return {f"{resource['kind']}/{resource['metadata']['name']}": resource for resource in resources}

    def refusal(self, *arguments: str) -> str:
        """Return why Helm renders nothing with these arguments."""
        done = self.run("template test", str(CHART), *arguments)
        assert done.returncode != 0, f"Helm takes {arguments}"
        return done.stderr

    def settings_file(self, values: Path, directory: Path) -> tuple[Path, Resource]:
        """Write the ConfigMap's file as a pod would see it; return it with the pod's only container."""
        resources = self.render("--values", str(values)).values()
        (config_map,) = (one for one in resources if one["kind"] == "ConfigMap" and "regard.toml" in one["data"])
        (deployment,) = (one for one in resources if one["kind"] == "Deployment")
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        ((name, text),) = config_map["data"].items()
        assert container["args"] == ["serve", "--config", f"/etc/regard/{name}"]
        file = directory / name
        file.write_text(text)
        return file, container


@pytest.fixture(scope="session")
def chart() -> Chart:
    """Return the chart, where there is a Helm of the Makefile's or of the PATH's."""
    found = shutil.which("helm", path=os.pathsep.join([str(ROOT / "build" / "tools"), os.environ.get("PATH", "")]))
    if found is None:
        pytest.skip("there is no helm: `make tools` fetches it")
    return Chart(Path(found))


@pytest.fixture
def serving(tmp_path: Path) -> Callable[..., Any]:
    """Return a context in which a command serves; it gives the process, and the line that tells its ports."""

    @contextmanager
    def running(*command: str | Path) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path, start_new_session=True)
        try:
            yield process, _until_it_serves(process)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()

    return running


def _until_it_serves(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if line.startswith("{") and (entry := json.loads(line)).get("event") == "serving":
            told: dict[str, Any] = entry
            return told
    pytest.fail(f"the server ended with {process.wait()}:\n{''.join(seen)}", pytrace=False)

"""The image that `make image` builds: what is in it, and containers of it that serve."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from regard import __version__
from regard.client import Client

from .conftest import CHART, ROOT, Chart

DOCKER = ROOT / "deploy" / "docker"
IMAGE = os.environ.get("IMAGE", "regard")
PATIENCE_S = 60
RUN = ("run", "--isolation=chroot")  # in this machine's network, so that clients out here reach it
LISTENING = "0A"
SHA256_OF_THE_SERVICE = """
import hashlib, pathlib, regard
place = pathlib.Path(regard.__file__).parent
digest = hashlib.sha256()
for path in sorted(path for path in place.rglob("*") if path.is_file() and path.suffix != ".pyc"):
    digest.update(f"{path.relative_to(place)}\\0".encode() + path.read_bytes())
print(digest.hexdigest())
"""


@dataclass(frozen=True)
class Container:
    """A container of the image, which buildah can run commands in."""

    name: str
    config: dict[str, Any]

    def command(self, *arguments: str, options: Sequence[str] = ()) -> list[str]:
        """Return the command that runs the image's entry point with `arguments`."""
        return ["buildah", *RUN, *options, self.name, "--", *self.config["Entrypoint"], *arguments]

    def output(self, *command: str) -> str:
        """Return what another command says in it."""
        return _buildah(*RUN, self.name, "--", *command)


@pytest.fixture(scope="module")
def container() -> Iterator[Container]:
    """Return a container of the image, where there are buildah and an image of the service as it is now."""
    if shutil.which("buildah") is None:
        pytest.skip("there is no buildah to run the image with")
    if not _buildah("images", "--quiet", "--filter", f"reference={IMAGE}"):
        pytest.skip(f"there is no image {IMAGE}: `make image` builds it")
    config = json.loads(_buildah("inspect", "--type", "image", IMAGE))["OCIv1"]["config"]
    container = Container(_buildah("from", "--pull-never", IMAGE), config)
    try:
        here = subprocess.run([sys.executable, "-c", SHA256_OF_THE_SERVICE], capture_output=True, text=True, check=True)
        if container.output("python", "-c", SHA256_OF_THE_SERVICE) != here.stdout.strip():
            pytest.skip(f"the image {IMAGE} holds another service than this tree: `make image` builds it anew")
        yield container
    finally:
        _buildah("rm", container.name)


@pytest.mark.parametrize("processor", ["cpu", "gpu"])
def test_image_is_of_the_version_that_everything_has(processor: str) -> None:
    """The project, the image's label and the chart's appVersion are one version."""
    assert f"\nARG VERSION={__version__}\n" in (DOCKER / f"Dockerfile.{processor}").read_text()
    assert f'\nappVersion: "{__version__}"\n' in (CHART / "Chart.yaml").read_text()


def test_images_differ_in_what_runs_the_graphs_alone() -> None:
    """Both Dockerfiles build and run the service in the same way."""
    cpu, gpu = (
        [line for line in (DOCKER / f"Dockerfile.{name}").read_text().splitlines() if not line.startswith("#")]
        for name in ("cpu", "gpu")
    )
    assert [line.replace("[cpu]", "[gpu]") for line in cpu] == [line for line in gpu if "NVIDIA" not in line]


def test_image_is_run_by_nobody(container: Container) -> None:
    """Its user is a number that isn't root's, and can write neither the code nor beside it."""
    user, group = map(int, container.config["User"].split(":"))
    writable = "import os; print([path for path in ('/', '/opt/regard', os.__file__) if os.access(path, os.W_OK)])"

    assert user > 0
    assert container.output("id", "-u") == str(user)
    assert container.output("id", "-G") == str(group)
    assert container.output("python", "-c", writable) == "[]"


def test_image_holds_nothing_that_only_export_needs(container: Container) -> None:
    """There is ONNX Runtime, and neither torch nor transformers nor anything to install with."""
    installed = "import importlib.metadata as m; print(*sorted(one.name.lower() for one in m.distributions()))"
    names = set(container.output("python", "-c", installed).split())

    assert {"regard", "onnxruntime"} <= names
    assert not names & {"torch", "transformers", "onnx", "onnxscript", "safetensors", "pip", "setuptools"}


def test_image_reports_to_nobody(container: Container) -> None:
    """ONNX Runtime is told to keep what it sees to itself."""
    assert "ORT_DISABLE_TELEMETRY=1" in container.config["Env"]


@pytest.mark.parametrize("user", ["", "1000650000:1000650000"], ids=["its-own-user", "a-user-of-the-cluster"])
def test_container_serves_as_the_chart_runs_it(
    container: Container,
    chart: Chart,
    packages: Path,
    serving: Callable[..., AbstractContextManager[Any]],
    tmp_path: Path,
    user: str,
) -> None:
    """With the chart's settings file and packages mounted it answers, as the user that it shall be."""
    file, pods = chart.settings_file(CHART / "ci" / "claim-values.yaml", tmp_path)
    user = user or container.config["User"]
    options = [f"--user={user}", f"--volume={packages}:/models:ro", f"--volume={file}:{pods['args'][-1]}:ro"]
    elsewhere = ["--host", "127.0.0.1", "--grpc-port", "0", "--http-port", "0"]

    with serving(*container.command(*pods["args"], *elsewhere, options=options)) as (_, told):
        with Client(f"127.0.0.1:{told['grpc_port']}", timeout_s=PATIENCE_S) as client:
            assert client.translate("She is reading a book.").text
        assert _user_who_listens(told["grpc_port"]) == int(user.partition(":")[0])


def _user_who_listens(port: int) -> int:
    """Return the user of the process that listens on `port`, as Linux tells it."""
    sockets = [line.split() for table in ("tcp", "tcp6") for line in Path("/proc/net", table).read_text().splitlines()]
    (user,) = {int(one[7]) for one in sockets if one[3] == LISTENING and one[1].endswith(f":{port:04X}")}
    return user


def _buildah(*arguments: str) -> str:
    done = subprocess.run(["buildah", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()

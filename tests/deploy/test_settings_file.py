"""The settings file that the chart renders, in the real server."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from regard.client import Client
from regard.config import load_settings

from .conftest import CHART, VALUES_SETS, Chart

PATIENCE_S = 60


@pytest.mark.parametrize("values", VALUES_SETS, ids=[path.stem for path in VALUES_SETS])
def test_server_reads_every_setting(chart: Chart, values: Path, tmp_path: Path) -> None:
    """The file is one that the server takes whole, from where the chart mounts the models."""
    file, container = chart.settings_file(values, tmp_path)

    settings = load_settings({}, file)

    assert settings.grpc_port == container["readinessProbe"]["grpc"]["port"]
    assert [str(path) for path in settings.models] == ["/models"]


def test_server_boots_and_answers_the_probes(
    chart: Chart, packages: Path, serving: Callable[..., Any], tmp_path: Path
) -> None:
    """A server with that file serves: every probe finds it well, and it translates."""
    file, container = chart.settings_file(CHART / "ci" / "claim-values.yaml", tmp_path)
    command = [sys.executable, "-m", "regard.cli", "serve", "--config", file]
    elsewhere = ["--models", packages, "--host", "127.0.0.1", "--grpc-port", "0", "--http-port", "0"]

    with serving(*command, *elsewhere) as (_, told):
        target = f"127.0.0.1:{told['grpc_port']}"
        with grpc.insecure_channel(target) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                asked = health_pb2.HealthCheckRequest(service=container[probe]["grpc"]["service"])
                answer = health.Check(asked, timeout=PATIENCE_S)
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with Client(target, timeout_s=PATIENCE_S) as client:
            assert client.translate("She is reading a book.").text

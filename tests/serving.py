"""A server of real packages, for suites that ask one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from regard.catalog import load_catalog
from regard.config import EngineSettings, ServerSettings
from regard.manifest import Package
from regard.metrics import Metrics
from regard.rpc.server import Server
from regard.worker import Worker


@asynccontextmanager
async def serving(models: Path) -> AsyncIterator[str]:
    """Run a server of the packages in `models`; its address is the target."""
    metrics = Metrics()
    settings = ServerSettings(grpc_port=0, http_port=0, engine=EngineSettings())

    def worker_of(package: Package) -> Worker:
        return Worker(package, settings.engine, metrics.observer(package.manifest.name, package.manifest.version))

    server = Server(settings, load_catalog([models], worker_of), metrics)
    await server.start()
    try:
        yield f"127.0.0.1:{server.grpc_port}"
    finally:
        await server.stop()

"""A server of real packages, for suites that ask one, and what the page of a report holds."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from regard.catalog import load_catalog
from regard.config import ServerSettings
from regard.manifest import Package
from regard.metrics import Metrics
from regard.rpc.server import Server
from regard.worker import Worker


@asynccontextmanager
async def serving(models: Path, **chosen: Any) -> AsyncIterator[str]:
    """Run a server of the packages in `models`, with settings that are chosen; its address is the target."""
    metrics = Metrics()
    settings = ServerSettings(grpc_port=0, http_port=0, **chosen)

    def worker_of(package: Package) -> Worker:
        return Worker(package, settings.engine, metrics.observer(package.manifest.name, package.manifest.version))

    server = Server(settings, load_catalog([models], worker_of), metrics)
    await server.start()
    try:
        yield f"127.0.0.1:{server.grpc_port}"
    finally:
        await server.stop()


@contextmanager
def serving_in_thread(models: Path) -> Iterator[str]:
    """Run a server of the packages in `models` beside several tests, each with an event loop of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server = serving(models)
    try:
        address = asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result()
        try:
            yield address
        finally:
            asyncio.run_coroutine_threadsafe(server.__aexit__(None, None, None), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def answers_of(page: Path) -> list[dict[str, Any]]:
    """Return the answers that a report's page was given to show."""
    found = re.search(
        '<script type="application/json" id="document">(.*?)</script>', page.read_text("utf-8"), re.DOTALL
    )
    assert found is not None
    answers: list[dict[str, Any]] = json.loads(found[1])["answers"]
    return answers

"""Whether the server and each of its models take requests, by `grpc.health.v1` and for /readyz.

The servicer of grpcio-health-checking is not used: once one of several watchers of a name leaves,
the others hear nothing more.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

from grpc_health.v1 import health_pb2, health_pb2_grpc

from regard.catalog import Catalog
from regard.errors import ModelNotFoundError
from regard.metrics import Metrics
from regard.rpc.interceptor import Context

WATCH_INTERVAL_S = 0.25
"""How often workers are asked whether they still take requests."""


class Health:
    """What the server says of itself. `draining` is final."""

    def __init__(self, catalog: Catalog, metrics: Metrics, listening: Callable[[], bool]) -> None:
        """Tell of the models of a catalog, while calls can come, which `listening` says."""
        self._catalog = catalog
        self._listening = listening
        self._metrics = metrics
        self.draining = False
        self.record()  # while the first model loads, too

    @property
    def unready(self) -> list[str]:
        """Why the server takes no requests, in words; empty if it does. Safe from any thread."""
        if self.draining:
            return ["draining"]
        if not self._listening():
            return ["the gRPC port is closed"]
        return [f"{model.label} is not ready" for model in self._catalog.models if not model.worker.ready]

    def serving(self, service: str) -> bool | None:
        """Return whether "" (the server), "NAME" or "NAME/VERSION" takes requests; None if there is no such."""
        if not service:
            return not self.unready
        name, _, version = service.partition("/")
        try:
            model = self._catalog.find(name, version)
        except ModelNotFoundError:
            return None
        return model.worker.ready and not self.draining

    def record(self) -> None:
        """Write each model's readiness to the metrics."""
        for model in self._catalog.models:
            ready = model.worker.ready and not self.draining
            self._metrics.model_ready.labels(model.labels.model, model.labels.version).set(ready)


class HealthService(health_pb2_grpc.HealthServicer):
    """Check and Watch for "" (the whole server), "NAME" (its highest version) and "NAME/VERSION"."""

    def __init__(self, health: Health) -> None:
        self._health = health
        self._changed = asyncio.Event()
        self._closed = False

    def announce(self) -> None:
        """Have every watcher look again."""
        self._health.record()
        self._changed.set()
        self._changed = asyncio.Event()

    def close(self) -> None:
        """End every watch, once its watcher has been told the last state."""
        self._closed = True
        self.announce()

    async def follow(self) -> None:
        """Announce what changes by itself, such as a worker that has died, until cancelled."""
        seen: list[str] | None = None
        while True:
            if (unready := self._health.unready) != seen:
                seen = unready
                self.announce()
            await asyncio.sleep(WATCH_INTERVAL_S)

    async def Check(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> health_pb2.HealthCheckResponse:
        """Answer once. A name that the server does not know is NOT_FOUND."""
        serving = self._health.serving(request.service)
        if serving is None:
            raise ModelNotFoundError("the server has no model of that name and version")
        return health_pb2.HealthCheckResponse(status=_status(serving))

    async def Watch(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> AsyncGenerator[health_pb2.HealthCheckResponse, None]:
        """Answer now and on every change, until the caller or the server goes."""
        last: int | None = None
        while True:
            changed = self._changed
            status = _status(self._health.serving(request.service))
            if status != last:
                last = status
                yield health_pb2.HealthCheckResponse(status=status)
            if self._closed:
                return
            await changed.wait()


def _status(serving: bool | None) -> int:
    if serving is None:
        return health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    return health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING

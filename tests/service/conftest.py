"""A whole server on free ports, around scripted workers and real packages of real tokenizers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.serving import serving_in_thread

from regard.catalog import Catalog, load_catalog
from regard.client import AsyncClient
from regard.config import ServerSettings
from regard.manifest import ClassificationSpec, ImageSpec, Package, Task
from regard.metrics import Metrics
from regard.rpc.server import Server
from regard.v1 import caption_pb2_grpc, classification_pb2_grpc, model_pb2_grpc, translation_pb2_grpc

from ..unit.packages import IMAGE, manifest_of, unigram, word_piece  # noqa: TID252 - tests are no package of sys.path
from .scripted_worker import ScriptedWorker

LABELS = ("greeting", "farewell", "weather", "other")


@dataclass
class Running:
    """A server that answers, and what tests ask of it."""

    server: Server
    catalog: Catalog
    metrics: Metrics
    channel: grpc.aio.Channel

    @property
    def address(self) -> str:
        """Where gRPC listens."""
        return f"127.0.0.1:{self.server.grpc_port}"

    @property
    def translation(self) -> translation_pb2_grpc.TranslationServiceAsyncStub:
        """A stub on the channel."""
        return translation_pb2_grpc.TranslationServiceStub(self.channel)

    @property
    def caption(self) -> caption_pb2_grpc.CaptionServiceAsyncStub:
        """A stub on the channel."""
        return caption_pb2_grpc.CaptionServiceStub(self.channel)

    @property
    def classification(self) -> classification_pb2_grpc.ClassificationServiceAsyncStub:
        """A stub on the channel."""
        return classification_pb2_grpc.ClassificationServiceStub(self.channel)

    @property
    def models(self) -> model_pb2_grpc.ModelServiceAsyncStub:
        """A stub on the channel."""
        return model_pb2_grpc.ModelServiceStub(self.channel)

    def worker(self, name: str = "echo", version: str = "") -> ScriptedWorker:
        """Return the worker of a model."""
        worker = self.catalog.find(name, version).worker
        assert isinstance(worker, ScriptedWorker)
        return worker

    def metric(self, name: str, **labels: str) -> float:
        """Return a sample's value; 0 if it was never written."""
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


Serve = Callable[..., AbstractAsyncContextManager[Running]]


def write_package(
    models: Path, name: str, version: str, task: Task, image: ImageSpec | None = None, **fields: Any
) -> Path:
    """Write a package without graphs, as an export would, and return its directory; `fields` are its manifest's."""
    directory = models / name / version
    directory.mkdir(parents=True)
    tokenizer = word_piece() if task is Task.CLASSIFICATION else unigram()
    tokenizer.save(str(directory / "tokenizer.json"))
    manifest = manifest_of(task, image=image)
    fields |= {"name": name, "version": version}
    fields["files"] = {"tokenizer.json": hashlib.sha256((directory / "tokenizer.json").read_bytes()).hexdigest()}
    if task is Task.CLASSIFICATION:
        fields["classification"] = ClassificationSpec(
            labels=LABELS, out_of_scope_label="other", out_of_scope_threshold=0.5
        )
    (directory / "manifest.json").write_text(json.dumps(manifest.model_copy(update=fields).model_dump(mode="json")))
    return directory


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a models directory of a translator, `echo/1`, and a classifier, `sorter/1`."""
    directory = tmp_path_factory.mktemp("models")
    write_package(directory, "echo", "1", Task.TRANSLATION)
    write_package(directory, "sorter", "1", Task.CLASSIFICATION)
    return directory


@pytest.fixture(scope="session")
def galleries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a models directory of a captioner, `viewer/1`, and an image classifier, `curator/1`."""
    directory = tmp_path_factory.mktemp("galleries")
    write_package(directory, "viewer", "1", Task.CAPTIONING, IMAGE)
    write_package(directory, "curator", "1", Task.CLASSIFICATION, IMAGE)
    return directory


def catalog_of(models: Path, metrics: Metrics) -> Catalog:
    """Return the catalog of a directory, with a scripted worker for each model."""

    def worker_of(package: Package) -> ScriptedWorker:
        return ScriptedWorker(package, metrics.observer(package.manifest.name, package.manifest.version))

    return load_catalog([models], worker_of)


@pytest.fixture
def serve(models: Path) -> Serve:
    """Return a context manager that runs a server: `serve(max_inputs=3)`, `serve(other_models)`."""

    @asynccontextmanager
    async def serving(directory: Path = models, **settings: Any) -> AsyncIterator[Running]:
        metrics = Metrics()
        catalog = catalog_of(directory, metrics)
        chosen = ServerSettings(**{"grpc_port": 0, "http_port": 0, "drain_timeout_s": 5.0} | settings)
        server = Server(chosen, catalog, metrics)
        try:
            await server.start()
            async with grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
                yield Running(server, catalog, metrics, channel)
        finally:
            for model in catalog.models:
                assert isinstance(model.worker, ScriptedWorker)
                model.worker.steps.set()
            await server.stop()

    return serving


@pytest.fixture(scope="module")
def address(packages: Path) -> Iterator[str]:
    """Yield where a server of the demonstration packages listens, for all tests of a module."""
    with serving_in_thread(packages) as address:
        yield address


@pytest.fixture
async def client(address: str) -> AsyncIterator[AsyncClient]:
    """Yield a client of that server."""
    async with AsyncClient(address) as opened:
        yield opened

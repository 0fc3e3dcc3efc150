"""The models that a server holds: found in directories, verified, and looked up by name and version."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from regard.audio.codec import AudioCodec
from regard.engine.request import Classification, ClassifyRequest, GenerateRequest, Generation, TokenEvent
from regard.errors import ConfigurationError, InvalidInputError, ModelNotFoundError, quoted
from regard.manifest import Manifest, Package, Task, find_packages, load_package
from regard.metrics import ModelLabels
from regard.text.codec import TextCodec
from regard.vision.codec import ImageCodec

_SERVICES = {
    Task.TRANSLATION: "TranslationService",
    Task.CAPTIONING: "CaptionService",
    Task.CLASSIFICATION: "ClassificationService",
    Task.TRANSCRIPTION: "TranscriptionService",
    Task.TOKEN_CLASSIFICATION: "ClassificationService's ClassifyTokens",
    Task.QUESTION_ANSWERING: "QuestionAnsweringService",
    Task.SIMILARITY: "SimilarityService",
    Task.COMPLETION: "CompletionService",
}


class ModelWorker(Protocol):
    """What the server asks of a worker: `regard.worker.Worker`, or a fake of it."""

    @property
    def ready(self) -> bool:
        """Whether it is loaded and takes requests."""

    @property
    def provider(self) -> str:
        """The execution provider that it really runs on; empty before it is started."""

    @property
    def instances(self) -> int:
        """How many instances run it side by side; 0 before it is started."""

    def start(self) -> None:
        """Load the model and start its threads; blocks."""

    def expecting(self, foreseen: GenerateRequest | ClassifyRequest) -> AbstractContextManager[None]:
        """Hold room while the source of a request is read; raises at once if there is none."""

    def check_room(self, foreseen: GenerateRequest | ClassifyRequest) -> None:
        """Raise what `expecting` would, and hold nothing."""

    async def run(self, request: GenerateRequest | ClassifyRequest) -> Generation | Classification:
        """Return the result of one input."""

    def stream(
        self, request: GenerateRequest, *, held: Callable[[int], None] = ...
    ) -> AsyncGenerator[TokenEvent | Generation, None]:
        """Yield every token of one input as it is made, then the result; `held` is told of weights that wait."""

    def stop(self) -> None:
        """End the threads; what still runs ends with `UnavailableError`."""


@dataclass(frozen=True)
class Model:
    """One version of a model: its package, its ways with text, images and sound, and the worker that runs it.

    `text` is None for a model that neither reads nor writes it, `images` for one that doesn't look
    at any, `audio` for one that doesn't listen.
    """

    package: Package
    text: TextCodec | None
    images: ImageCodec | None
    audio: AudioCodec | None
    worker: ModelWorker

    @property
    def manifest(self) -> Manifest:
        """The package's manifest."""
        return self.package.manifest

    @property
    def label(self) -> str:
        """`NAME/VERSION`."""
        return f"{self.manifest.name}/{self.manifest.version}"

    @property
    def labels(self) -> ModelLabels:
        """The labels of its metrics."""
        return ModelLabels(self.manifest.name, self.manifest.version, self.manifest.task.value)


class Catalog:
    """Every model of a server, in order of name and version."""

    def __init__(self, models: Iterable[Model]) -> None:
        """Raise `ConfigurationError`, naming both packages, if two models bear one name and version."""
        self.models: Sequence[Model] = sorted(models, key=_order)
        for one, other in zip(self.models, self.models[1:], strict=False):
            if one.label == other.label:
                raise ConfigurationError(
                    f"two packages are named {one.label}: {one.package.directory} and {other.package.directory}; "
                    "remove or rename one"
                )

    def find(self, name: str, version: str = "") -> Model:
        """Return a version of the model `name`; the highest, if `version` is empty.

        Raises `ModelNotFoundError`, listing those that there are.
        """
        versions = [model for model in self.models if model.manifest.name == name]
        if not versions:
            raise ModelNotFoundError(
                f"the server has no model {quoted(name)}; it has {', '.join(self._names())}", field="model_name"
            )
        if not version:
            return versions[-1]
        for model in versions:
            if model.manifest.version == version:
                return model
        held = ", ".join(model.manifest.version for model in versions)
        raise ModelNotFoundError(f"model {name} has no version {quoted(version)}; it has {held}", field="model_version")

    def resolve(self, name: str, version: str, task: Task) -> Model:
        """Return the model that a request for `task` means; `name` may be empty if only one does that task.

        Raises `ModelNotFoundError` if there is none and `InvalidInputError` if the name is missing
        or the model does another task.
        """
        model = self.find(name or self._only(task), version)
        if model.manifest.task is not task:
            raise InvalidInputError(
                f"model {model.manifest.name} does {model.manifest.task}, not {task}; "
                f"call {_SERVICES[model.manifest.task]}",
                field="model_name",
            )
        return model

    def _only(self, task: Task) -> str:
        names = self._names(task)
        if not names:
            raise ModelNotFoundError(
                f"the server has no model for {task}; it has {', '.join(self._names())}", field="model_name"
            )
        if len(names) > 1:
            raise InvalidInputError(
                f"the server has several models for {task}; name one of {', '.join(names)}", field="model_name"
            )
        return names[0]

    def _names(self, task: Task | None = None) -> list[str]:
        models = (model for model in self.models if task is None or model.manifest.task is task)
        return list(dict.fromkeys(model.manifest.name for model in models))


def load_catalog(
    directories: Sequence[Path], worker_of: Callable[[Package], ModelWorker], max_positions: int = 0
) -> Catalog:
    """Read and verify every package below `directories`, and make a worker for each; none is started.

    Texts may have `max_positions` tokens, if it isn't 0, of those that a model takes.
    Raises `ConfigurationError` for a directory that is not there, can't be read or holds no package at all, and
    for two packages of one name and version; `PackageError`, naming it, for a package that can't be trusted.
    """
    packages = []
    for directory in directories:
        if not directory.is_dir():
            raise ConfigurationError(f"there is no directory of models {directory}")
        packages += [load_package(found) for found in find_packages(directory)]
    if not packages:
        places = ", ".join(map(str, directories))
        raise ConfigurationError(
            f"there is no model in {places}; a package is a directory NAME/VERSION/ that holds a manifest.json"
        )
    if max_positions:
        packages = [package.within(max_positions) for package in packages]
    return Catalog(_model(package, worker_of(package)) for package in packages)


def _model(package: Package, worker: ModelWorker) -> Model:
    manifest = package.manifest
    text = TextCodec(package) if manifest.text else None
    images = ImageCodec(manifest.image) if manifest.image else None
    audio = AudioCodec(manifest.audio) if manifest.audio else None
    return Model(package, text, images, audio, worker)


def _order(model: Model) -> tuple[str, int]:
    return model.manifest.name, int(model.manifest.version)

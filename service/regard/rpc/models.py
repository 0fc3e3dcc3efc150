"""`regard.v1.ModelService`: what the server holds."""

from __future__ import annotations

from regard.attention.selection import AttentionKind, AttentionStack
from regard.catalog import Catalog, Model
from regard.manifest import AudioSpec, ImageSpec, TapSpec, TranscriptionSpec
from regard.rpc import convert
from regard.rpc.interceptor import Context
from regard.v1 import model_pb2, model_pb2_grpc


class ModelService(model_pb2_grpc.ModelServiceServicer):
    """Lists the models of a catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def ListModels(  # noqa: N802
        self, request: model_pb2.ListModelsRequest, context: Context
    ) -> model_pb2.ListModelsResponse:
        """Return every model, in order of name and version."""
        return model_pb2.ListModelsResponse(models=[_describe(model) for model in self._catalog.models])


def _describe(model: Model) -> model_pb2.Model:
    manifest = model.manifest
    generation, classification = manifest.generation, manifest.classification
    return model_pb2.Model(
        name=manifest.name,
        version=manifest.version,
        task=convert.TASKS[manifest.task],
        architecture=manifest.source.architecture,
        precision=manifest.precision,
        package_sha256=model.package.sha256,
        max_source_tokens=(manifest.text.max_source_tokens or 0) if manifest.text else 0,
        max_target_tokens=generation.max_target_tokens if generation else 0,
        taps=[_tap(tap) for tap in manifest.taps if not tap.of_prompt],
        labels=classification.labels if classification else (),
        ready=model.worker.ready,
        image=_image(manifest.image) if manifest.image else None,
        speech=_speech(manifest.audio, manifest.transcription) if manifest.audio and manifest.transcription else None,
        embedding_size=manifest.similarity.embedding_size if manifest.similarity else 0,
        takes_interventions=manifest.takes_interventions,
    )


def _image(spec: ImageSpec) -> model_pb2.ImageInput:
    return model_pb2.ImageInput(
        height=spec.height, width=spec.width, patch_rows=spec.patch_rows, patch_columns=spec.patch_columns
    )


def _speech(audio: AudioSpec, spec: TranscriptionSpec) -> model_pb2.SpeechInput:
    return model_pb2.SpeechInput(
        sampling_rate=audio.sampling_rate,
        window_s=audio.window_s,
        positions=audio.positions,
        languages=sorted(spec.languages),
        translates="translate" in spec.tasks,
        timestamps=spec.no_timestamps_token_id is not None,
    )


def _tap(tap: TapSpec) -> model_pb2.Tap:
    return model_pb2.Tap(
        kind=convert.KINDS[AttentionKind(tap.kind)],
        stack=convert.STACKS[AttentionStack(tap.stack)],
        layer=tap.layer,
        heads=tap.heads,
    )

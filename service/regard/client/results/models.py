"""The models of a server."""

from __future__ import annotations

from regard.answers import Model, Tap
from regard.client.results.attention import read_kind, read_stack
from regard.client.results.names import read_name
from regard.v1 import model_pb2


def read_models(response: model_pb2.ListModelsResponse) -> list[Model]:
    """Read the models of a server."""
    return [
        Model(
            name=model.name,
            version=model.version,
            task=read_name(model_pb2.Task.Name, model.task, "TASK_"),
            architecture=model.architecture,
            precision=model.precision,
            package_sha256=model.package_sha256,
            max_source_tokens=model.max_source_tokens,
            max_target_tokens=model.max_target_tokens,
            taps=tuple(
                Tap(kind=read_kind(tap.kind), stack=read_stack(tap.stack), layer=tap.layer, heads=tap.heads)
                for tap in model.taps
            ),
            labels=tuple(model.labels),
            ready=model.ready,
            takes_interventions=model.takes_interventions,
        )
        for model in response.models
    ]

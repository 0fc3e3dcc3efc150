"""What a server answers, as immutable values; each mirrors the message of the same name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from regard.client.failures import Failure
from regard.v1 import attention_pb2, classification_pb2, generation_pb2, model_pb2, result_pb2, translation_pb2

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Segment:
    """A token or a word, and where it stands in its text, in code points; `end` is exclusive.

    A special token, such as the end of the sentence, stands nowhere: `start` equals `end`.
    """

    text: str
    start: int
    end: int
    special: bool
    token_id: int | None


@dataclass(frozen=True, slots=True)
class PatchGrid:
    """Where the patches of an image lie: the elements of an axis that are not special, row by row.

    The grid covers the part of the image that starts at `left`, `top` and is `width` by `height`,
    all in pixels of the image with its EXIF orientation applied; that is all of it, unless the
    model looks at a crop.
    """

    rows: int
    columns: int
    image_width: int
    image_height: int
    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True, slots=True, eq=False)
class AttentionMap:
    """The weights of one layer: float32 [heads, queries, keys], exactly as the model computed them.

    `heads` lists the heads in the map or, after a reduction, those that went in (the first
    dimension of `weights` is then 1). `query_axis` and `key_axis` are `source`, `target` or
    `decoder_input`; `queries` and `keys` label them, and an axis over an image has a grid as well.
    """

    kind: str
    stack: str
    layer: int
    heads: tuple[int, ...]
    reduction: str
    query_axis: str
    key_axis: str
    queries: tuple[Segment, ...]
    keys: tuple[Segment, ...]
    weights: npt.NDArray[np.float32]
    query_grid: PatchGrid | None = None
    key_grid: PatchGrid | None = None


@dataclass(frozen=True, slots=True)
class Attention:
    """Every map that was asked for, and which weights, in which precision, they come from."""

    granularity: str
    maps: tuple[AttentionMap, ...]
    package_sha256: str
    precision: str


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the time of one input went, in seconds."""

    queue_s: float
    encode_s: float
    decode_s: float


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """The model that answered."""

    name: str
    version: str


@dataclass(frozen=True, slots=True)
class Translation:
    """The translation of one text.

    `log_probability` is the natural logarithm of the probability of all generated tokens;
    `attention` is present if it was asked for; `model` is absent from a streamed translation.
    """

    text: str
    finish_reason: str
    source_tokens: int
    target_tokens: int
    log_probability: float
    truncated: bool
    attention: Attention | None
    timing: Timing
    model: ModelVersion | None


@dataclass(frozen=True, slots=True)
class Caption:
    """The caption of one image; its fields are those of `Translation`."""

    text: str
    finish_reason: str
    target_tokens: int
    log_probability: float
    attention: Attention | None
    timing: Timing
    model: ModelVersion | None


@dataclass(frozen=True, slots=True)
class TokenDelta:
    """One more token of a translation or a caption, and what it adds to the text."""

    token_id: int
    text: str
    log_probability: float


@dataclass(frozen=True, slots=True)
class ClassProbability:
    """A class, its index in the model's output, and its probability, from 0 to 1."""

    label: str
    index: int
    probability: float


@dataclass(frozen=True, slots=True)
class Classification:
    """The likeliest classes of one text, in descending order of probability."""

    classes: tuple[ClassProbability, ...]
    out_of_scope: bool
    source_tokens: int
    truncated: bool
    attention: Attention | None
    timing: Timing
    model: ModelVersion


@dataclass(frozen=True, slots=True)
class Tap:
    """One layer whose attention weights can be asked for."""

    kind: str
    stack: str
    layer: int
    heads: int


@dataclass(frozen=True, slots=True)
class Model:
    """A model that a server holds; `ready` is False while it loads or drains."""

    name: str
    version: str
    task: str
    architecture: str
    precision: str
    package_sha256: str
    max_source_tokens: int
    max_target_tokens: int
    taps: tuple[Tap, ...]
    labels: tuple[str, ...]
    ready: bool


def read_translations(response: translation_pb2.TranslateResponse, first_index: int) -> list[Translation | Failure]:
    """Read the results of a request whose first text is the caller's text `first_index`."""
    model = _model_version(response.model)
    return [
        read_failure(result.failure, "texts", first_index)
        if result.HasField("failure")
        else read_translation(result.translation, model)
        for result in response.results
    ]


def read_classifications(
    response: classification_pb2.ClassifyResponse, first_index: int
) -> list[Classification | Failure]:
    """Read the results of a request whose first input is the caller's input `first_index`."""
    model = _model_version(response.model)
    return [
        read_failure(result.failure, "inputs", first_index)
        if result.HasField("failure")
        else _read_classification(result.classification, model)
        for result in response.results
    ]


def read_failure(failure: result_pb2.Failure, list_name: str, first_index: int) -> Failure:
    """Read a failure; the index in its field becomes the caller's, whatever request carried it."""
    field, message = failure.field, failure.message
    prefix = f"{list_name}["
    if first_index and field.startswith(prefix):
        index, bracket, rest = field.removeprefix(prefix).partition("]")
        if bracket and index.isdecimal():
            sent, own = f"{prefix}{index}]", f"{prefix}{int(index) + first_index}]"
            field, message = own + rest, message.replace(sent, own)
    return Failure(code=failure.code, message=message, field=field)


def read_translation(translation: translation_pb2.Translation, model: ModelVersion | None) -> Translation:
    """Read one translation."""
    return Translation(
        text=translation.text,
        finish_reason=_name(generation_pb2.FinishReason.Name, translation.finish_reason, "FINISH_REASON_"),
        source_tokens=translation.source_tokens,
        target_tokens=translation.target_tokens,
        log_probability=translation.log_probability,
        truncated=translation.truncated,
        attention=_read_attention(translation.attention) if translation.HasField("attention") else None,
        timing=_read_timing(translation.timing),
        model=model,
    )


def read_event(event: translation_pb2.StreamTranslateResponse) -> TokenDelta | Translation | Failure:
    """Read one event of the stream of one text."""
    if event.HasField("failure"):
        return read_failure(event.failure, "texts", 0)
    if event.HasField("translation"):
        return read_translation(event.translation, None)
    delta = event.delta
    return TokenDelta(token_id=delta.token_id, text=delta.text, log_probability=delta.log_probability)


def read_models(response: model_pb2.ListModelsResponse) -> list[Model]:
    """Read the models of a server."""
    return [
        Model(
            name=model.name,
            version=model.version,
            task=_name(model_pb2.Task.Name, model.task, "TASK_"),
            architecture=model.architecture,
            precision=model.precision,
            package_sha256=model.package_sha256,
            max_source_tokens=model.max_source_tokens,
            max_target_tokens=model.max_target_tokens,
            taps=tuple(
                Tap(kind=_kind(tap.kind), stack=_stack(tap.stack), layer=tap.layer, heads=tap.heads)
                for tap in model.taps
            ),
            labels=tuple(model.labels),
            ready=model.ready,
        )
        for model in response.models
    ]


def _read_classification(classification: classification_pb2.Classification, model: ModelVersion) -> Classification:
    return Classification(
        classes=tuple(
            ClassProbability(label=one.label, index=one.index, probability=one.probability)
            for one in classification.classes
        ),
        out_of_scope=classification.out_of_scope,
        source_tokens=classification.source_tokens,
        truncated=classification.truncated,
        attention=_read_attention(classification.attention) if classification.HasField("attention") else None,
        timing=_read_timing(classification.timing),
        model=model,
    )


def _read_attention(attention: attention_pb2.Attention) -> Attention:
    axes = {axis.axis: axis for axis in attention.axes}
    return Attention(
        granularity=_name(attention_pb2.AttentionGranularity.Name, attention.granularity, "ATTENTION_GRANULARITY_"),
        maps=tuple(_read_map(one, axes[one.query_axis], axes[one.key_axis]) for one in attention.maps),
        package_sha256=attention.package_sha256,
        precision=attention.precision,
    )


def _read_map(sent: attention_pb2.AttentionMap, queries: attention_pb2.Axis, keys: attention_pb2.Axis) -> AttentionMap:
    return AttentionMap(
        kind=_kind(sent.kind),
        stack=_stack(sent.stack),
        layer=sent.layer,
        heads=tuple(sent.heads),
        reduction=_name(attention_pb2.AttentionReduction.Name, sent.reduction, "ATTENTION_REDUCTION_"),
        query_axis=_axis(sent.query_axis),
        key_axis=_axis(sent.key_axis),
        queries=tuple(map(_read_segment, queries.segments)),
        keys=tuple(map(_read_segment, keys.segments)),
        weights=np.frombuffer(sent.weights, dtype="<f4").astype(np.float32, copy=False).reshape(tuple(sent.shape)),
        query_grid=_read_grid(queries),
        key_grid=_read_grid(keys),
    )


def _read_grid(axis: attention_pb2.Axis) -> PatchGrid | None:
    if not axis.HasField("grid"):
        return None
    grid = axis.grid
    return PatchGrid(
        rows=grid.rows,
        columns=grid.columns,
        image_width=grid.image_width,
        image_height=grid.image_height,
        left=grid.left,
        top=grid.top,
        width=grid.width,
        height=grid.height,
    )


def _read_segment(segment: attention_pb2.Segment) -> Segment:
    return Segment(
        text=segment.text,
        start=segment.start,
        end=segment.end,
        special=segment.special,
        token_id=segment.token_id if segment.HasField("token_id") else None,
    )


def _read_timing(timing: result_pb2.Timing) -> Timing:
    return Timing(queue_s=timing.queue_s, encode_s=timing.encode_s, decode_s=timing.decode_s)


def _model_version(model: result_pb2.ModelVersion) -> ModelVersion:
    return ModelVersion(name=model.name, version=model.version)


def _kind(value: attention_pb2.AttentionKind.ValueType) -> str:
    return _name(attention_pb2.AttentionKind.Name, value, "ATTENTION_KIND_")


def _stack(value: attention_pb2.AttentionStack.ValueType) -> str:
    return _name(attention_pb2.AttentionStack.Name, value, "ATTENTION_STACK_")


def _axis(value: attention_pb2.AttentionAxis.ValueType) -> str:
    return _name(attention_pb2.AttentionAxis.Name, value, "ATTENTION_AXIS_")


def _name(name_of: Callable[[R], str], value: R, prefix: str) -> str:
    """Return an enum value's name without the prefix that every value of its enum has."""
    try:
        return name_of(value).removeprefix(prefix).lower()
    except ValueError:  # a value that a newer server knows
        return f"unknown_{value}"

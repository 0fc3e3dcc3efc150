"""Between the messages of `regard.v1` and what the rest of the service works with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from regard.attention.alignment import Alignment
from regard.attention.axes import Axis, AxisName
from regard.attention.encoding import Encoding, encode
from regard.attention.maps import AttentionMap
from regard.attention.rows import MapRow
from regard.attention.selection import (
    AttentionChoice,
    AttentionKind,
    AttentionStack,
    Granularity,
    Reduction,
    Selection,
    Weighting,
)
from regard.audio.frames import Frames
from regard.engine.request import FinishReason, GeneratedSequence, Phases, Priority
from regard.errors import InvalidInputError, RegardError
from regard.manifest import ClassificationSpec, Manifest, Package, TapSpec, Task
from regard.rpc.wire import Weights
from regard.text.markup.document import Markup
from regard.text.segment import Segment
from regard.v1 import (
    alignment_pb2,
    attention_pb2,
    classification_pb2,
    generation_pb2,
    model_pb2,
    priority_pb2,
    result_pb2,
    translation_pb2,
)
from regard.vision.grid import PatchGrid

MAX_LISTED = 1024
"""The most layers, or heads, that a list of them may have."""

E = TypeVar("E", bound=Enum)
Probabilities = npt.NDArray[np.float64]

TASKS = {
    Task.TRANSLATION: model_pb2.TASK_TRANSLATION,
    Task.CAPTIONING: model_pb2.TASK_CAPTIONING,
    Task.CLASSIFICATION: model_pb2.TASK_CLASSIFICATION,
    Task.TRANSCRIPTION: model_pb2.TASK_TRANSCRIPTION,
    Task.TOKEN_CLASSIFICATION: model_pb2.TASK_TOKEN_CLASSIFICATION,
    Task.QUESTION_ANSWERING: model_pb2.TASK_QUESTION_ANSWERING,
    Task.SIMILARITY: model_pb2.TASK_SIMILARITY,
    Task.COMPLETION: model_pb2.TASK_COMPLETION,
}
KINDS = {
    AttentionKind.SELF: attention_pb2.ATTENTION_KIND_SELF,
    AttentionKind.CROSS: attention_pb2.ATTENTION_KIND_CROSS,
}
STACKS = {
    AttentionStack.ENCODER: attention_pb2.ATTENTION_STACK_ENCODER,
    AttentionStack.DECODER: attention_pb2.ATTENTION_STACK_DECODER,
    AttentionStack.TEXT_ENCODER: attention_pb2.ATTENTION_STACK_TEXT_ENCODER,
    AttentionStack.IMAGE_ENCODER: attention_pb2.ATTENTION_STACK_IMAGE_ENCODER,
}
REDUCTIONS = {
    Reduction.NONE: attention_pb2.ATTENTION_REDUCTION_NONE,
    Reduction.MEAN: attention_pb2.ATTENTION_REDUCTION_MEAN,
    Reduction.MAX: attention_pb2.ATTENTION_REDUCTION_MAX,
    Reduction.ALIGNMENT_HEADS: attention_pb2.ATTENTION_REDUCTION_ALIGNMENT_HEADS,
    Reduction.ROLLOUT: attention_pb2.ATTENTION_REDUCTION_ROLLOUT,
}
GRANULARITIES = {
    Granularity.TOKEN: attention_pb2.ATTENTION_GRANULARITY_TOKEN,
    Granularity.WORD: attention_pb2.ATTENTION_GRANULARITY_WORD,
    Granularity.PATCH: attention_pb2.ATTENTION_GRANULARITY_PATCH,
}
WEIGHTINGS = {
    Weighting.NONE: attention_pb2.ATTENTION_WEIGHTING_NONE,
    Weighting.VALUE_NORM: attention_pb2.ATTENTION_WEIGHTING_VALUE_NORM,
}
ENCODINGS = {
    Encoding.FLOAT32: attention_pb2.ATTENTION_ENCODING_FLOAT32,
    Encoding.FLOAT16: attention_pb2.ATTENTION_ENCODING_FLOAT16,
    Encoding.UINT8: attention_pb2.ATTENTION_ENCODING_UINT8,
}
AXES = {
    AxisName.SOURCE: attention_pb2.ATTENTION_AXIS_SOURCE,
    AxisName.TARGET: attention_pb2.ATTENTION_AXIS_TARGET,
    AxisName.DECODER_INPUT: attention_pb2.ATTENTION_AXIS_DECODER_INPUT,
    AxisName.PATCHES: attention_pb2.ATTENTION_AXIS_PATCHES,
}
FINISH_REASONS = {
    FinishReason.END_OF_SENTENCE: generation_pb2.FINISH_REASON_END_OF_SENTENCE,
    FinishReason.LENGTH: generation_pb2.FINISH_REASON_LENGTH,
    FinishReason.STOP_STRING: generation_pb2.FINISH_REASON_STOP_STRING,
}

PRIORITIES = {
    Priority.HIGH: priority_pb2.PRIORITY_HIGH,
    Priority.NORMAL: priority_pb2.PRIORITY_NORMAL,
    Priority.LOW: priority_pb2.PRIORITY_LOW,
}


MARKUPS = {Markup.HTML: translation_pb2.MARKUP_HTML, Markup.XLIFF: translation_pb2.MARKUP_XLIFF}


def markup_of(value: int) -> Markup | None:
    """Return what texts are marked up with, if anything. Raises `InvalidInputError` for a value that the enum lacks."""
    plain = (translation_pb2.MARKUP_UNSPECIFIED, translation_pb2.MARKUP_NONE)
    return None if value in plain else one_of(value, MARKUPS, "markup")


def priority_of(value: int) -> Priority:
    """Return whose turn comes first. Raises `InvalidInputError` for a value that the enum lacks."""
    return one_of(value, PRIORITIES, "priority") if value else Priority.NORMAL


def choice_of(options: attention_pb2.AttentionOptions) -> AttentionChoice:
    """Return what attention the message asks for. Raises `InvalidInputError` as `several` and `each_once` do."""
    return AttentionChoice(
        kinds=several(options.kinds, KINDS, "attention.kinds"),
        stacks=several(options.stacks, STACKS, "attention.stacks"),
        layers=each_once(options.layers, "attention.layers"),
        heads=each_once(options.heads, "attention.heads"),
        reduction=one_of(options.reduction, REDUCTIONS, "attention.reduction") if options.reduction else Reduction.NONE,
        granularity=(
            one_of(options.granularity, GRANULARITIES, "attention.granularity")
            if options.granularity
            else Granularity.TOKEN
        ),
        prompt=options.prompt,
        top_k=options.top_k,
        encoding=one_of(options.encoding, ENCODINGS, "attention.encoding") if options.encoding else Encoding.FLOAT32,
        weighting=one_of(options.weighting, WEIGHTINGS, "attention.weighting") if options.weighting else Weighting.NONE,
    )


def several(values: Sequence[int], names: Mapping[E, int], field: str) -> tuple[E, ...]:
    """Return what each number of an enum stands for.

    Raises `InvalidInputError` for one that it lacks, and for more of them than it has.
    """
    if len(values) > len(names):
        raise InvalidInputError(
            f"{field} lists {len(values)} values, and there are {len(names)}; name each once", field=field
        )
    return tuple(one_of(value, names, f"{field}[{index}]") for index, value in enumerate(values))


def each_once(numbers: Sequence[int], field: str) -> tuple[int, ...]:
    """Return the numbers of a list, such as layers, each once. Raises `InvalidInputError` for too many."""
    if len(numbers) > MAX_LISTED:
        raise InvalidInputError(
            f"{field} lists {len(numbers)} numbers; at most {MAX_LISTED} are taken; name each once", field=field
        )
    return tuple(dict.fromkeys(numbers))


def one_of(value: int, names: Mapping[E, int], field: str) -> E:
    """Return what a number of an enum stands for. Raises `InvalidInputError` for one that it lacks."""
    for name, number in names.items():
        if number == value:
            return name
    known = ", ".join(f"{number} ({name.name.lower()})" for name, number in names.items())
    raise InvalidInputError(f"{field}: {value} is not one of {known}", field=field)


def attention(
    package: Package,
    selection: Selection,
    axes: Mapping[AxisName, Axis],
    maps: Sequence[AttentionMap],
    weights: Weights,
) -> attention_pb2.Attention:
    """Return maps and their axes as a message, with the package that they come from."""
    used = {name for one in maps for name in (one.query_axis, one.key_axis)}
    return attention_pb2.Attention(
        granularity=GRANULARITIES[selection.granularity],
        axes=[axis_message(axis) for name, axis in axes.items() if name in used],
        maps=[_map(one, selection, weights) for one in maps],
        package_sha256=package.sha256,
        precision=package.manifest.precision,
    )


def axis_message(axis: Axis) -> attention_pb2.Axis:
    """Return the elements of an axis as a message."""
    return attention_pb2.Axis(
        axis=AXES[axis.name],
        segments=[segment(one) for one in axis.segments],
        grid=_grid(axis.grid) if axis.grid else None,
        frames=_frames(axis.frames) if axis.frames else None,
    )


def alignment(found: Alignment) -> alignment_pb2.Alignment:
    """Return which words go together as a message."""
    return alignment_pb2.Alignment(
        source_words=[segment(word) for word in found.source_words],
        target_words=[segment(word) for word in found.target_words],
        links=[
            alignment_pb2.AlignmentLink(source_word=link.source, target_word=link.target, weight=link.weight)
            for link in found.links
        ],
        source_coverage=found.coverage,
        target_confidence=found.confidence,
    )


def segment(one: Segment) -> attention_pb2.Segment:
    """Return a token or a word as a message."""
    return attention_pb2.Segment(
        text=one.text,
        start=one.start,
        end=one.end,
        special=one.special,
        token_id=one.token_id,
        part=one.part,
    )


def _grid(grid: PatchGrid) -> attention_pb2.PatchGrid:
    return attention_pb2.PatchGrid(
        rows=grid.rows,
        columns=grid.columns,
        image_width=grid.image_width,
        image_height=grid.image_height,
        left=grid.left,
        top=grid.top,
        width=grid.width,
        height=grid.height,
    )


def _frames(frames: Frames) -> attention_pb2.SoundFrames:
    return attention_pb2.SoundFrames(
        start_s=frames.start_s, end_s=frames.end_s, seconds_per_frame=frames.seconds_per_frame
    )


def _map(one: AttentionMap, selection: Selection, weights: Weights) -> attention_pb2.AttentionMap:
    encoded = encode(one.weights, selection.encoding, selection.top_k)
    return attention_pb2.AttentionMap(
        kind=KINDS[AttentionKind(one.tap.kind)],
        stack=STACKS[AttentionStack(one.tap.stack)],
        layer=one.tap.layer,
        heads=one.heads,
        reduction=REDUCTIONS[one.reduction],
        query_axis=AXES[one.query_axis],
        key_axis=AXES[one.key_axis],
        shape=encoded.shape,
        encoding=ENCODINGS[selection.encoding],
        weights=weights.put(encoded.weights),
        key_indices=encoded.key_indices,
        row_scales=encoded.row_scales,
        max_error=encoded.max_error,
        weighting=weighting_of(one.tap),
    )


def row(one: MapRow) -> attention_pb2.AttentionRow:
    """Return what one token attended to as a message."""
    return attention_pb2.AttentionRow(
        query=one.query,
        kind=KINDS[AttentionKind(one.tap.kind)],
        layer=one.tap.layer,
        heads=one.heads,
        reduction=REDUCTIONS[one.reduction],
        key_axis=AXES[one.key_axis],
        shape=one.weights.shape,
        weights=one.weights.astype("<f4", copy=False).tobytes(),
        weighting=weighting_of(one.tap),
    )


def weighting_of(tap: TapSpec) -> attention_pb2.AttentionWeighting.ValueType:
    """Return what the weights of a tap are multiplied by."""
    return WEIGHTINGS[Weighting(tap.weighting) if tap.weighting else Weighting.NONE]


def model_version(manifest: Manifest) -> result_pb2.ModelVersion:
    """Return which model answers as a message."""
    return result_pb2.ModelVersion(name=manifest.name, version=manifest.version)


def tokens(sequence: GeneratedSequence, spelling: Callable[[int], str]) -> list[generation_pb2.GeneratedToken]:
    """Return the tokens of a sequence as messages, with the likeliest of their positions."""
    likeliest = sequence.top_logprobs or [[]] * len(sequence.token_ids)
    return [
        generation_pb2.GeneratedToken(
            token_id=token_id,
            token=spelling(token_id),
            log_probability=log_probability,
            top_logprobs=[
                generation_pb2.TokenLogprob(
                    token_id=one.token_id, token=spelling(one.token_id), log_probability=one.log_probability
                )
                for one in position
            ],
        )
        for token_id, log_probability, position in zip(
            sequence.token_ids, sequence.log_probabilities, likeliest, strict=True
        )
    ]


def timing(phases: Phases) -> result_pb2.Timing:
    """Return where the time went as a message."""
    return result_pb2.Timing(queue_s=phases.queue_s, encode_s=phases.encode_s, decode_s=phases.decode_s)


def failure(error: RegardError) -> result_pb2.Failure:
    """Return why one input has no result as a message."""
    return result_pb2.Failure(
        code=error.code, message=error.message, field=error.field, retry_after_s=error.retry_after_s
    )


def classes(
    probabilities: Probabilities, labels: Sequence[str], top_k: int
) -> list[classification_pb2.ClassProbability]:
    """Return the `top_k` likeliest classes, in descending order of probability; ties in order of index."""
    order = np.argsort(-probabilities, kind="stable")[:top_k]
    return [
        classification_pb2.ClassProbability(
            label=labels[index], index=int(index), probability=float(probabilities[index])
        )
        for index in order
    ]


def out_of_scope(likeliest: classification_pb2.ClassProbability, spec: ClassificationSpec) -> bool:
    """Return whether the answer is the out-of-scope class, or less likely than the threshold."""
    threshold = spec.out_of_scope_threshold
    return likeliest.label == spec.out_of_scope_label or (threshold is not None and likeliest.probability < threshold)


def probabilities(kind: Literal["softmax", "sigmoid"], logits: npt.NDArray[np.floating[Any]]) -> Probabilities:
    """Return the probabilities [..., C] of `logits` [..., C], in float64: against each other, or each by itself."""
    return softmax(logits) if kind == "softmax" else np.asarray(np.exp(-np.logaddexp(0.0, -logits.astype(np.float64))))


def softmax(logits: npt.NDArray[np.floating[Any]]) -> Probabilities:
    """Return the probabilities [..., C] of `logits` [..., C], in float64."""
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True))

"""Attention maps, and their axes."""

from __future__ import annotations

from math import prod

import numpy as np
import numpy.typing as npt

from regard.answers import Attention, AttentionMap, AttentionRow, PatchGrid, Segment, SoundFrames
from regard.client.results.names import read_name
from regard.v1 import attention_pb2


def read_attention(attention: attention_pb2.Attention) -> Attention:
    """Read the maps of one result, each with its axes."""
    axes = {axis.axis: axis for axis in attention.axes}
    return Attention(
        granularity=read_name(attention_pb2.AttentionGranularity.Name, attention.granularity, "ATTENTION_GRANULARITY_"),
        maps=tuple(_read_map(one, axes[one.query_axis], axes[one.key_axis]) for one in attention.maps),
        package_sha256=attention.package_sha256,
        precision=attention.precision,
    )


def _read_map(sent: attention_pb2.AttentionMap, queries: attention_pb2.Axis, keys: attention_pb2.Axis) -> AttentionMap:
    return AttentionMap(
        kind=read_kind(sent.kind),
        stack=read_stack(sent.stack),
        layer=sent.layer,
        heads=tuple(sent.heads),
        reduction=read_name(attention_pb2.AttentionReduction.Name, sent.reduction, "ATTENTION_REDUCTION_"),
        query_axis=_axis(sent.query_axis),
        key_axis=_axis(sent.key_axis),
        queries=tuple(map(read_segment, queries.segments)),
        keys=tuple(map(read_segment, keys.segments)),
        weights=_read_weights(sent),
        query_grid=read_grid(queries),
        key_grid=read_grid(keys),
        query_frames=_read_frames(queries),
        key_frames=_read_frames(keys),
        key_indices=_read_indices(sent, len(keys.segments)),
        encoding=read_name(attention_pb2.AttentionEncoding.Name, sent.encoding, "ATTENTION_ENCODING_"),
        max_error=sent.max_error,
        weighting=_weighting(sent.weighting),
    )


def read_row(sent: attention_pb2.AttentionRow) -> AttentionRow:
    """Read what one token attended to."""
    return AttentionRow(
        query=sent.query,
        kind=read_kind(sent.kind),
        layer=sent.layer,
        heads=tuple(sent.heads),
        reduction=read_name(attention_pb2.AttentionReduction.Name, sent.reduction, "ATTENTION_REDUCTION_"),
        key_axis=_axis(sent.key_axis),
        weights=np.frombuffer(sent.weights, "<f4").astype(np.float32, copy=False).reshape(tuple(sent.shape)),
        weighting=_weighting(sent.weighting),
    )


def _read_weights(sent: attention_pb2.AttentionMap) -> npt.NDArray[np.float32]:
    shape = tuple(sent.shape)
    if sent.encoding == attention_pb2.ATTENTION_ENCODING_UINT8:
        scales = np.frombuffer(sent.row_scales, "<f4").astype(np.float32, copy=False).reshape(*shape[:2], 1)
        return np.frombuffer(sent.weights, np.uint8).reshape(shape) * scales
    stored = "<f2" if sent.encoding == attention_pb2.ATTENTION_ENCODING_FLOAT16 else "<f4"
    return np.frombuffer(sent.weights, stored).astype(np.float32, copy=False).reshape(shape)


def _read_indices(sent: attention_pb2.AttentionMap, keys: int) -> npt.NDArray[np.uint32] | None:
    if sent.shape[2] == keys:
        return None
    width = len(sent.key_indices) // prod(sent.shape) if sent.key_indices else 1
    return np.frombuffer(sent.key_indices, f"<u{width}").astype(np.uint32).reshape(tuple(sent.shape))


def _read_frames(axis: attention_pb2.Axis) -> SoundFrames | None:
    if not axis.HasField("frames"):
        return None
    return SoundFrames(axis.frames.start_s, axis.frames.end_s, axis.frames.seconds_per_frame)


def read_grid(axis: attention_pb2.Axis) -> PatchGrid | None:
    """Read where the patches of an axis lie; None if it runs over no image."""
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


def read_segment(segment: attention_pb2.Segment) -> Segment:
    """Read one segment of an axis."""
    return Segment(
        text=segment.text,
        start=segment.start,
        end=segment.end,
        special=segment.special,
        token_id=segment.token_id if segment.HasField("token_id") else None,
        part=segment.part,
    )


def read_kind(value: attention_pb2.AttentionKind.ValueType) -> str:
    """Return the word for a kind of attention."""
    return read_name(attention_pb2.AttentionKind.Name, value, "ATTENTION_KIND_")


def read_stack(value: attention_pb2.AttentionStack.ValueType) -> str:
    """Return the word for a stack of layers."""
    return read_name(attention_pb2.AttentionStack.Name, value, "ATTENTION_STACK_")


def _weighting(value: attention_pb2.AttentionWeighting.ValueType) -> str:
    if not value:  # of a server that knows no other
        return "none"
    return read_name(attention_pb2.AttentionWeighting.Name, value, "ATTENTION_WEIGHTING_")


def _axis(value: attention_pb2.AttentionAxis.ValueType) -> str:
    return read_name(attention_pb2.AttentionAxis.Name, value, "ATTENTION_AXIS_")

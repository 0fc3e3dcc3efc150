"""Attention maps: the engine's weights, put together as a request asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from regard.attention.axes import Axis, AxisName, axis_names
from regard.attention.heads import mean_of_heads
from regard.attention.selection import Reduction, Selection
from regard.manifest import AlignmentSpec, TapSpec

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class AttentionMap:
    """The weights of one layer, float32 [heads, queries, keys] in row-major order.

    `heads` are those that went in; after a reduction the first dimension of `weights` is 1.
    """

    tap: TapSpec
    heads: tuple[int, ...]
    reduction: Reduction
    weights: FloatArray
    query_axis: AxisName
    key_axis: AxisName


def build(selection: Selection, taps: Mapping[str, FloatArray], axes: Mapping[AxisName, Axis]) -> list[AttentionMap]:
    """Return a map for each tap of `selection`, in its order.

    `taps` are as the engine gives them, [heads, queries, keys] by the tap's name; `axes` as
    `axes.label` gives them. The weights of a word's tokens are summed over keys and averaged over
    queries, head by head, so that rows sum to what they did; then the heads are reduced. Raises
    `ValueError` if a tap's array doesn't fit its axes.
    """
    if selection.alignment is not None:
        return [_alignment_map(selection, selection.alignment, taps, axes)]
    maps = []
    for tap in selection.taps:
        query_name, key_name = axis_names(tap)
        queries, keys = axes[query_name], axes[key_name]
        weights = taps[tap.name]
        if weights.shape != (tap.heads, queries.tokens, keys.tokens):
            raise ValueError(f"{tap.name}: {weights.shape} is not {(tap.heads, queries.tokens, keys.tokens)}")
        if selection.heads:
            weights = weights[list(selection.heads)]
        if selection.reduction is Reduction.MEAN:  # before pooling, with which it commutes: there is less to pool
            weights = weights.mean(axis=0, keepdims=True)
        weights = _pool(weights, queries, keys)
        if selection.reduction is Reduction.MAX:
            weights = weights.max(axis=0, keepdims=True)
        weights = np.ascontiguousarray(weights, dtype=np.float32)
        maps.append(AttentionMap(tap, selection.heads_of(tap), selection.reduction, weights, query_name, key_name))
    return maps


def _alignment_map(
    selection: Selection, spec: AlignmentSpec, taps: Mapping[str, FloatArray], axes: Mapping[AxisName, Axis]
) -> AttentionMap:
    deepest = selection.taps[-1]
    query_name, key_name = axis_names(deepest)
    weights = _pool(mean_of_heads(spec, taps)[np.newaxis], axes[query_name], axes[key_name])
    heads = tuple(sorted({head.head for head in spec.heads if head.layer == deepest.layer}))
    weights = np.ascontiguousarray(weights, dtype=np.float32)
    return AttentionMap(deepest, heads, selection.reduction, weights, query_name, key_name)


def size_of(selection: Selection, lengths: Mapping[AxisName, int]) -> int:
    """Return the bytes of weights that `selection` comes to, given the number of elements of each axis."""
    elements = 0
    for tap in selection.taps[-1:] if selection.alignment else selection.taps:
        queries, keys = axis_names(tap)
        heads = len(selection.heads_of(tap)) if selection.reduction is Reduction.NONE else 1
        elements += heads * lengths[queries] * lengths[keys]
    return elements * np.dtype(np.float32).itemsize


def _pool(weights: FloatArray, queries: Axis, keys: Axis) -> FloatArray:
    if queries.groups is not None:
        sizes = np.array([len(group) for group in queries.groups], dtype=np.float32)
        weights = _sum_groups(weights, queries.groups, axis=1) / sizes[:, np.newaxis]
    if keys.groups is not None:
        weights = _sum_groups(weights, keys.groups, axis=2)
    return weights


def _sum_groups(weights: FloatArray, groups: Sequence[Sequence[int]], axis: int) -> FloatArray:
    """Return the sums of `weights` over each group of indices along `axis`; no group may be empty."""
    order = np.concatenate([np.asarray(group, dtype=np.intp) for group in groups])
    starts = np.cumsum([0, *(len(group) for group in groups[:-1])])
    sums: FloatArray = np.add.reduceat(weights.take(order, axis=axis), starts, axis=axis)
    return sums

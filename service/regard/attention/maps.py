"""Attention maps: the engine's weights, put together as a request asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from regard.attention.axes import Axis, AxisName, axes_of, axis_names
from regard.attention.encoding import encoded_size
from regard.attention.heads import mean_of_heads
from regard.attention.rollout import cross_rollout, joined, rollout
from regard.attention.selection import Reduction, Selection
from regard.manifest import TapSpec

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
    """Return each map of `selection`, in its order.

    `taps` are as the engine gives them, [heads, queries, keys] by the tap's name; `axes` as
    `axes.label` gives them. The weights of a word's tokens are summed over keys and averaged over
    queries, head by head, so that rows sum to what they did; then the heads are reduced. Raises
    `ValueError` if a tap's array doesn't fit its axes.
    """
    rolled = _rolled(selection, taps) if selection.reduction is Reduction.ROLLOUT else {}
    maps = []
    for tap in selection.maps:
        given = selection.given(tap)
        found, expected = taps[given.name].shape, (given.heads, *(axes[name].tokens for name in axis_names(tap)))
        if found != expected:
            raise ValueError(f"{given.name}: {found} is not {expected}")
        query_name, key_name = axes_of(tap, axes)
        match selection.reduction:
            case Reduction.ROLLOUT:
                weights = rolled[tap.name]
            case Reduction.ALIGNMENT_HEADS:
                weights = _aligned(selection, taps)
            case Reduction.MEAN:  # before pooling, with which it commutes: there is less to pool
                weights = _chosen(selection, taps[given.name])
                weights = weights if given.reduction else weights.mean(axis=0, keepdims=True)
            case Reduction.NONE | Reduction.MAX:
                weights = _chosen(selection, taps[given.name])
        weights = _pool(weights, axes[query_name], axes[key_name])
        if selection.reduction is Reduction.MAX:
            weights = weights.max(axis=0, keepdims=True)
        maps.append(AttentionMap(tap, selection.heads_of(tap), selection.reduction, weights, query_name, key_name))
    return maps


def size_of(selection: Selection, axes: Mapping[AxisName, Axis]) -> int:
    """Return the bytes that the maps of `selection` come to; an axis that isn't known yet is of one element."""
    size = 0
    for tap in selection.maps:
        queries, keys = (len(axes[name].segments) if name in axes else 1 for name in axes_of(tap, axes))
        heads = len(selection.heads_of(tap)) if selection.reduction is Reduction.NONE else 1
        size += encoded_size((heads, queries, keys), selection.encoding, selection.top_k)
    return size


def size_read(selection: Selection, axes: Mapping[AxisName, Axis]) -> int:
    """Return the bytes of the taps, of every head, that the maps of `selection` are made of; axes are as above."""
    elements = 0
    for tap in selection.taps:
        queries, keys = (axes[name].tokens if name in axes else 1 for name in axis_names(tap))
        elements += tap.heads * queries * keys
    return elements * np.dtype(np.float32).itemsize


def _chosen(selection: Selection, weights: FloatArray) -> FloatArray:
    return weights[list(selection.heads)] if selection.heads else weights


def _aligned(selection: Selection, taps: Mapping[str, FloatArray]) -> FloatArray:
    """Return the mean [1, queries, keys] of the alignment heads."""
    assert selection.alignment is not None
    return mean_of_heads(selection.alignment, taps)[np.newaxis]


def _rolled(selection: Selection, taps: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """Return the rollout [1, queries, keys] up to each of the selection's maps, by the tap's name."""
    layers: dict[str, list[FloatArray]] = {}
    for tap in sorted(selection.taps, key=lambda one: one.layer):
        layers.setdefault(_family(tap), []).append(_chosen(selection, taps[selection.given(tap).name]))
    families = {_family(tap): _family_rollout(_family(tap), layers, selection) for tap in selection.maps}
    return {tap.name: families[_family(tap)][tap.layer][np.newaxis] for tap in selection.maps}


def _family_rollout(
    family: str, layers: Mapping[str, Sequence[FloatArray]], selection: Selection
) -> Sequence[FloatArray]:
    """Return the rollouts up to each layer of a family, such as `decoder.cross`."""
    if family == "decoder.cross":
        crossing = layers[family]
        return cross_rollout(layers["decoder.self"][: len(crossing)], crossing, rollout(layers["encoder.self"])[-1])
    if family == "decoder.self" and selection.reads_source:
        own = layers[family]
        prompts = layers["prompt.self"][: len(own)]
        whole = [joined(prompt, target) for prompt, target in zip(prompts, own, strict=True)]
        return [one[-own[0].shape[1] :] for one in rollout(whole)]
    return rollout(layers[family])


def _family(tap: TapSpec) -> str:
    return tap.name.rpartition(".")[0]


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
    taken = weights.take(order, axis=axis)
    if len(order) == len(groups):
        return taken
    starts = np.cumsum([0, *(len(group) for group in groups[:-1])])
    sums: FloatArray = np.add.reduceat(taken, starts, axis=axis)
    return sums

"""What a model's own attention says of the parts of its input."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from regard.attention.parts import Parts
from regard.attention.rollout import cross_rollout, rollout

FloatArray = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]


def last_layer(layers: Sequence[FloatArray], parts: Parts) -> Floats:
    """Return what the last layer gives to each part, [parts]: the mean of its heads.

    `layers` are the self-attention of every layer, the first one first, each [heads, S, S]; the others aren't read.
    """
    return _read(layers[-1].mean(axis=0), parts)


def rolled_out(layers: Sequence[FloatArray], parts: Parts) -> Floats:
    """Return what the rollout of all layers gives to each part, [parts]; `layers` are as in `last_layer`."""
    return _read(rollout(layers)[-1], parts)


def last_crossing(crossing: Sequence[FloatArray]) -> FloatArray:
    """Return what each step gives to each source position, [T, S]: the mean of the last layer's heads.

    `crossing` are the cross-attention of every layer, the first one first, each [heads, T, S].
    """
    return np.asarray(crossing[-1].mean(axis=0), np.float32)


def rolled_out_crossing(
    encoder: Sequence[FloatArray], own: Sequence[FloatArray], crossing: Sequence[FloatArray]
) -> FloatArray:
    """Return how much of each source position each step is made of, [T, S], through all layers of both stacks.

    `encoder` are the encoder's self-attention [heads, S, S], `own` the decoder's [heads, T, T].
    """
    return cross_rollout(own, crossing, rollout(encoder)[-1])[-1]


def _read(flow: FloatArray, parts: Parts) -> Floats:
    """Return what the first position, if it is a special one, gives to each part by `flow` [S, S]; else what all do."""
    return parts.sums(flow[0] if parts.leads else flow.mean(axis=0)).astype(np.float64)

"""What an encoder's own attention says of the parts of its input."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from regard.attention.parts import Parts
from regard.attention.rollout import rollout

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


def _read(flow: FloatArray, parts: Parts) -> Floats:
    """Return what the first position, if it is a special one, gives to each part by `flow` [S, S]; else what all do."""
    return parts.sums(flow[0] if parts.leads else flow.mean(axis=0)).astype(np.float64)

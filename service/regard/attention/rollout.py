"""Attention rollout: the weights of layer upon layer, multiplied, so that keys are what the first layer reads.

Abnar & Zuidema 2020, Quantifying Attention Flow in Transformers, section "Attention rollout": of every
layer the heads' mean, half of what a position becomes; the other half is the position itself, by the
residual connection. A decoder that looks at an encoder has two such connections a layer, and so does
the half for each of them: what its positions are made of is followed through the cross-attention
into the encoder's own rollout.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]


def rollout(layers: Sequence[FloatArray]) -> list[FloatArray]:
    """Return, for each of a stack's layers, the rollout [S, S] from its first layer up to that one.

    `layers` are self-attention [heads, S, S], from the first layer on. Rows sum to 1.
    """
    rolled: list[FloatArray] = []
    for weights in layers:
        mixed = _with_residual(weights)
        rolled.append(mixed @ rolled[-1] if rolled else mixed)
    return rolled


def cross_rollout(own: Sequence[FloatArray], crossing: Sequence[FloatArray], encoder: FloatArray) -> list[FloatArray]:
    """Return, for each of a decoder's layers, how much of each source position its positions are made of, [T, S].

    `own` is the decoder's self-attention [heads, T, T] and `crossing` its cross-attention [heads, T, S],
    from the first layer on; `encoder` is the rollout [S, S] of all of the encoder's layers. What a
    position is made of beside the source, the decoder's inputs, is the same share for every position
    of a layer, 1 / 2^layers; it is left out, and rows sum to 1.
    """
    found: list[FloatArray] = []
    made = np.zeros((own[0].shape[1], encoder.shape[1]), np.float32)
    for self_weights, cross_weights in zip(own, crossing, strict=True):
        seen = cross_weights.mean(axis=0, dtype=np.float32) @ encoder
        made = 0.5 * (_with_residual(self_weights) @ made) + 0.5 * seen
        found.append(_normalised(made))
    return found


def joined(prompt: FloatArray, target: FloatArray) -> FloatArray:
    """Return the self-attention [heads, K, K] of a decoder that reads its source itself.

    `target` [heads, T, K] are the last rows of it; `prompt` [heads, S, S] has those before, and its
    keys are the first S.
    """
    heads, queries, keys = target.shape
    before = keys - queries
    whole = np.zeros((heads, keys, keys), np.float32)
    whole[:, :before, :before] = prompt[:, :before, :before]
    whole[:, before:] = target
    return whole


def _with_residual(weights: FloatArray) -> FloatArray:
    """Return a layer's weights [heads, S, S] as what each position becomes, [S, S]."""
    mixed = 0.5 * weights.mean(axis=0, dtype=np.float32)
    np.einsum("ii->i", mixed)[:] += 0.5
    return _normalised(mixed)


def _normalised(weights: FloatArray) -> FloatArray:
    normalised: FloatArray = weights / weights.sum(axis=-1, keepdims=True)
    return normalised

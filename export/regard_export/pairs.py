"""Weights of 8 bits whose products no processor saturates, rounded for it as little more as need be.

Processors with AVX2 but without VNNI multiply 8 bits by 8 in pairs: `vpmaddubsw` adds two products, of activations
from 0 to 255 and weights from -127 to 127, in 16 bits, and cuts off what doesn't fit. ONNX Runtime offers weights of 7
bits against it, which are twice as coarse, or products that are slower
(https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html#when-and-why-do-i-need-to-try-u8u8).
But only two neighbours of one sign that are together larger than 128 can go over. So a column's scale is widened
until few are, and those few are rounded towards 0 until they fit. Where weights are normal, they come out 1.35 times
as far off as with 8 bits; where a few are much larger than the others, 1.1 times.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

LARGEST = 127
PAIR = 128
"""What two neighbours of one sign come to at most: 255 times it fits into 16 bits."""
WIDER = (1.0, 1.1, 1.2, 1.3, 1.4, 1.5)
"""How much wider a column's scale may be than what its largest weight asks for; the best is taken."""
COLUMNS = 256
"""How many columns are rounded at a time, so that what is in between fits into a processor's cache."""

Floats = npt.NDArray[np.float32]
Rounded = npt.NDArray[np.int8]


def round_in_pairs(weights: Floats) -> tuple[Rounded, Floats]:
    """Round a matrix `[K, N]` to int8 `[K, N]`, with a scale `[N]` for each column."""
    parts = [_round_columns(weights[:, first : first + COLUMNS]) for first in range(0, weights.shape[1], COLUMNS)]
    rounded, scales = zip(*parts, strict=True)
    return np.concatenate(rounded, axis=1), np.concatenate(scales)


def _round_columns(weights: Floats) -> tuple[Rounded, Floats]:
    """Round some columns with each of the scales, and take what is nearest in each column."""
    largest: Floats = np.abs(weights).max(axis=0, initial=0)
    least: Floats = np.where(largest > 0, largest / np.float32(LARGEST), np.float32(1))
    best: Rounded = np.zeros(weights.shape, np.int8)
    scales: Floats = least
    smallest: Floats = np.full(weights.shape[1], np.inf, np.float32)
    for wider in WIDER:
        scale = least * np.float32(wider)
        rounded = _fit(np.rint(weights / scale))
        error = np.square(rounded * scale - weights).sum(axis=0)
        better = error < smallest
        best = np.where(better, rounded.astype(np.int8), best)
        scales, smallest = np.where(better, scale, scales), np.where(better, error, smallest)
    return best, scales


def _fit(rounded: Floats) -> Floats:
    """Move every pair of neighbours that is too large towards 0, in place, both as far."""
    even, odd = rounded[:-1:2], rounded[1::2]  # an odd last one stands alone
    at = np.nonzero(np.abs(even + odd) > PAIR)  # which two of unlike signs never are
    one, other = even[at], odd[at]
    over = np.abs(one + other) - PAIR
    first = np.abs(one) >= np.abs(other)
    even[at] -= np.sign(one) * np.where(first, np.ceil(over / 2), np.floor(over / 2))
    odd[at] -= np.sign(other) * np.where(first, np.floor(over / 2), np.ceil(over / 2))
    return rounded

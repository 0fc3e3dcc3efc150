"""Attention weights as bytes: the largest of each query or all, in as many bits as were asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IndexArray = npt.NDArray[np.intp]

_SCALE_BYTES = 4
_STEPS = 255
_FLOAT16_BITS = 11
_SMALLEST_FLOAT16_STEP = -24
_LARGEST_FLOAT16 = 65504.0
_IN_CACHE = 1 << 15
"""How many weights are turned into float16 at once."""


class Encoding(StrEnum):
    """How a weight is written."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    UINT8 = "uint8"

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """The little-endian type of a weight."""
        return np.dtype(self.value).newbyteorder("<")


@dataclass(frozen=True, slots=True)
class EncodedMap:
    """The bytes of a map: `shape` [heads, queries, keys] of weights, which are at most `max_error` off.

    `key_indices` has the place of each weight's key where only the largest are here, `row_scales` the
    float32 [heads, queries] that integers are to be multiplied with; either is empty otherwise.
    """

    shape: tuple[int, ...]
    weights: bytes
    key_indices: bytes
    row_scales: bytes
    max_error: float


def encode(weights: FloatArray, encoding: Encoding, top_k: int = 0) -> EncodedMap:
    """Return the bytes of `weights` [heads, queries, keys], none of them below 0; of the `top_k` largest, unless 0.

    Integers have a scale for each row: a map's error is that of its most peaked row either way, but with
    one scale for all of them a flat row beside it would keep next to nothing.
    """
    keys, key_indices = weights.shape[2], b""
    if _cuts(top_k, keys):
        weights, places = largest(weights, top_k)
        key_indices = places.astype(_index_type(keys)).tobytes()
    match encoding:
        case Encoding.FLOAT32:
            return EncodedMap(weights.shape, weights.astype("<f4", copy=False).tobytes(), key_indices, b"", 0.0)
        case Encoding.FLOAT16:
            beyond = max(float(weights.max(initial=0.0)) - _LARGEST_FLOAT16, 0.0)
            weights = np.minimum(weights, np.float32(_LARGEST_FLOAT16)) if beyond else weights
            error = _float16_error(weights) + beyond
            return EncodedMap(weights.shape, _halves(weights).tobytes(), key_indices, b"", error)
        case Encoding.UINT8:
            scales, stored = _quantised(weights)
            # Half a step, and a little for the rounding of the division, the product and the scale itself.
            error = 0.5001 * float(scales.max(initial=0.0)) + _STEPS * float(np.finfo(np.float32).tiny)
            return EncodedMap(
                weights.shape, stored.tobytes(), key_indices, scales.astype("<f4", copy=False).tobytes(), error
            )


def encoded_size(shape: tuple[int, int, int], encoding: Encoding, top_k: int = 0) -> int:
    """Return how many bytes `encode` makes of weights of a shape."""
    heads, queries, keys = shape
    each, kept = encoding.dtype.itemsize, keys
    if _cuts(top_k, keys):
        each, kept = each + _index_type(keys).itemsize, top_k
    return heads * queries * (kept * each + (_SCALE_BYTES if encoding is Encoding.UINT8 else 0))


def largest(weights: FloatArray, count: int) -> tuple[FloatArray, IndexArray]:
    """Return the `count` largest of each row of `weights` [..., keys], from the largest on, and their places."""
    first = weights.shape[-1] - count
    places = np.sort(np.argpartition(weights, first, axis=-1)[..., first:], axis=-1)
    kept = np.take_along_axis(weights, places, axis=-1)
    order = np.argsort(-kept, axis=-1, kind="stable")
    return np.take_along_axis(kept, order, axis=-1), np.take_along_axis(places, order, axis=-1)


def _cuts(top_k: int, keys: int) -> bool:
    return 0 < top_k < keys


def _index_type(keys: int) -> np.dtype[np.generic]:
    return np.min_scalar_type(max(keys - 1, 0)).newbyteorder("<")


def _quantised(weights: FloatArray) -> tuple[FloatArray, npt.NDArray[np.uint8]]:
    """Return a scale [heads, queries] for each row, and the row in its steps; rows too faint for one are zeros."""
    scales = weights.max(axis=2, initial=0.0) / np.float32(_STEPS)
    scales[scales < np.finfo(np.float32).tiny] = 0
    steps = np.divide(1, scales, out=np.zeros_like(scales), where=scales > 0)
    return scales, np.rint(weights * steps[..., np.newaxis]).astype(np.uint8)


def _halves(weights: FloatArray) -> npt.NDArray[np.uint16]:
    """Return the bits of the nearest float16 of weights from 0 to 65504, ties to even, in a row.

    As `astype` does, which takes several times as long where many weights are below 2^-14. There a
    float16 counts steps of 2^-24, to which a float32 between 0.5 and 1 is rounded as well; elsewhere
    13 bits of the fraction go, and the exponent is 112 less.
    """
    flat, halves = weights.reshape(-1), np.empty(weights.size, "<u2")
    for start in range(0, weights.size, _IN_CACHE):
        part = flat[start : start + _IN_CACHE]
        bits = part.view(np.uint32)
        faint = (part + np.float32(0.5)).view(np.uint32) - np.float32(0.5).view(np.uint32)
        odd = (bits >> 13) & 1
        usual = (bits + (odd + np.uint32(0x0FFF)) - np.uint32(112 << 23)) >> 13
        halves[start : start + _IN_CACHE] = np.where(part < np.float32(2**-14), faint, usual)
    return halves


def _float16_error(weights: FloatArray) -> float:
    """Return half of the largest step between the halves that `weights` are rounded to."""
    _, exponent = math.frexp(math.nextafter(float(weights.max(initial=0.0)), 0.0))
    return math.ldexp(0.5, max(exponent - _FLOAT16_BITS, _SMALLEST_FLOAT16_STEP))

"""Attention weights in as few bytes as the figures on the page need."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Encoding = Literal["uint16", "uint8"]

MOST_FINE_WEIGHTS = 4_000_000
MOST_WEIGHTS = 32_000_000


@dataclass(frozen=True, slots=True)
class EncodedWeights:
    """Weights as little-endian integers, a fraction of the type's largest, in base64.

    `error` is the largest difference between a weight and what the page reads back.
    """

    encoding: Encoding
    error: float
    base64: str


def choose_encoding(weights: int) -> Encoding:
    """Return how a page of so many weights stores each: 16 bits where the page stays small, 8 where it wouldn't."""
    return "uint16" if weights <= MOST_FINE_WEIGHTS else "uint8"


def encode_weights(weights: npt.NDArray[np.float32], encoding: Encoding) -> EncodedWeights:
    """Encode weights of any shape, each from 0 to 1, in row-major order.

    Raises `ValueError` for a weight that is no such number; a float's rounding beyond 1 is none.
    """
    exact = weights.astype(np.float64)
    if not np.all((exact >= -1e-5) & (exact <= 1 + 1e-5)):
        raise ValueError("attention weights lie between 0 and 1")
    largest = np.iinfo(encoding).max
    stored = np.rint(exact.clip(0, 1) * largest).astype(np.dtype(encoding).newbyteorder("<"))
    error = float(np.abs(stored / largest - exact).max(initial=0.0))
    return EncodedWeights(encoding, error, base64.b64encode(stored.tobytes()).decode("ascii"))

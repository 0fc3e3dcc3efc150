"""Who answered, and where the time went."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the time of one input went, in seconds."""

    queue_s: float
    encode_s: float
    decode_s: float


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """The model that answered."""

    name: str
    version: str

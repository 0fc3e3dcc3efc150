"""The heads that tell which word translates which, as a package was calibrated."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from regard.errors import InvalidInputError
from regard.manifest import AlignmentHead, AlignmentSpec, Manifest

FloatArray = npt.NDArray[np.float32]


def alignment_of(manifest: Manifest, field: str) -> AlignmentSpec:
    """Return how a package aligns words. Raises `InvalidInputError`, naming the field, if it was not calibrated."""
    if manifest.alignment is None:
        raise InvalidInputError(
            f"{field}: model {manifest.name} tells no word alignment, because its package was not calibrated; "
            "run regard-export calibrate on it, or use another model",
            field=field,
        )
    return manifest.alignment


def tap_name(head: AlignmentHead) -> str:
    """Return the name of the tap that holds a head."""
    return f"decoder.cross.{head.layer}"


def mean_of_heads(spec: AlignmentSpec, taps: Mapping[str, FloatArray]) -> FloatArray:
    """Return the mean [T, S] of the alignment heads, of taps [heads, T, S] by name: each token's row at its position.

    The last token was fed to no step: its row is that of the step that made it, for all heads.
    """
    rows = []
    for head in spec.heads:
        weights = taps[tap_name(head)][head.head]
        rows.append(np.concatenate([weights[1:], weights[-1:]]) if head.position == "input" else weights)
    mean: FloatArray = np.mean(rows, axis=0, dtype=np.float32)
    return mean

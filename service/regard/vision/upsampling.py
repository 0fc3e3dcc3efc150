"""A map over patches, brought to the size of the image that they were cut from."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]


def upsample(weights: FloatArray, size: tuple[int, int], part: tuple[float, float, float, float]) -> FloatArray:
    """Return `weights` [rows, columns] as a map over the image, [height, width].

    `size` is the image's width and height, `part` the left, top, width and height of what the
    patches cover of it, all in pixels.

    Bilinear between the middles of patches, level from the outermost middles to the grid's edge, 0
    where the model did not look.
    """
    rows, columns = weights.shape
    inside_x, x = _positions(size[0], part[0], part[2], columns)
    inside_y, y = _positions(size[1], part[1], part[3], rows)
    left, across = np.floor(x).astype(np.intp), (x - np.floor(x)).astype(np.float32)
    upper, down = np.floor(y).astype(np.intp), (y - np.floor(y)).astype(np.float32)
    right, lower = np.minimum(left + 1, columns - 1), np.minimum(upper + 1, rows - 1)
    between = weights[:, left] * (1 - across) + weights[:, right] * across
    full = between[upper] * (1 - down)[:, None] + between[lower] * down[:, None]
    outside = ~(inside_y[:, None] & inside_x[None, :])
    full[outside] = 0
    return np.asarray(full, np.float32)


def _positions(
    pixels: int, start: float, length: float, patches: int
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    """Return for each pixel of a side whether the grid covers it, and its place among the patches' middles."""
    middle = np.arange(pixels) + 0.5
    inside = (middle >= start) & (middle <= start + length)
    place = (middle - start) / length * patches - 0.5
    return inside, place.clip(0, patches - 1)

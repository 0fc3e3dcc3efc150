"""What the patches of an image are worth, drawn over it: the picture shows through where they are worth most."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from regard.vision.grid import PatchGrid
from regard.vision.picture import ImageLimits, read_picture
from regard.vision.upsampling import upsample

SMALLEST_SIDE, LARGEST_SIDE = 512, 1024
"""The bounds of the longer side of what is drawn, in pixels: a small picture is enlarged."""
_VEIL, _THICKEST = (12, 17, 27), 0.86
_AGAINST, _DENSEST = (232, 72, 48), 0.72

Floats = npt.NDArray[np.float32] | npt.NDArray[np.float64]


def draw_overlays(data: bytes, limits: ImageLimits, field: str, maps: Sequence[Floats], grid: PatchGrid) -> list[bytes]:
    """Return a PNG file for each of `maps`, [patches] in row-major order: the image in `data` under those weights.

    A veil lies over it, which is thinnest where the weight is greatest and is thickest from 0 on down; what is
    below 0 is tinted red, strongest where it is furthest below. Both are relative to the weight furthest from 0.
    Weights are brought to the picture's size as `upsample` does it. Raises what `read_picture` does.
    """
    picture = read_picture(data, limits, field)
    shown = picture.resize(_size(picture.size), Image.Resampling.LANCZOS)
    return [_png_of(_veiled(shown, weights, grid)) for weights in maps]


def _veiled(shown: Image.Image, weights: Floats, grid: PatchGrid) -> Image.Image:
    most = float(np.abs(weights).max(initial=0.0)) or 1.0
    map_of = np.asarray(weights, np.float32).reshape(grid.rows, grid.columns) / most
    across, down = shown.width / grid.image_width, shown.height / grid.image_height
    part = (grid.left * across, grid.top * down, grid.width * across, grid.height * down)
    share = upsample(map_of, shown.size, part)[..., None]
    pixels = np.asarray(shown, np.float64)
    veil, tint = _THICKEST * (1 - share.clip(0, 1)), _DENSEST * (-share).clip(0, 1)
    pixels = pixels * (1 - veil) + veil * np.array(_VEIL)
    pixels = pixels * (1 - tint) + tint * np.array(_AGAINST)
    return Image.fromarray(pixels.round().astype(np.uint8))


def _png_of(picture: Image.Image) -> bytes:
    written = io.BytesIO()
    picture.save(written, "PNG", optimize=True)
    return written.getvalue()


def _size(size: tuple[int, int]) -> tuple[int, int]:
    longer = max(size)
    scale = min(max(longer, SMALLEST_SIDE), LARGEST_SIDE) / longer
    return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)

"""Pictures to pixel values, as the checkpoint's own image processor makes them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from regard.manifest import ImageSpec
from regard.vision.grid import PatchGrid
from regard.vision.picture import ImageLimits, read_picture

MOST_RESIZED_PIXELS = 1 << 24
"""What a picture may be resized to as a whole; a thread of a picture can come to far more."""

FloatArray = npt.NDArray[np.float32]
Size = tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class EncodedImage:
    """An image as the model takes it: `pixel_values` [3, height, width], and where its patches lie."""

    pixel_values: FloatArray
    grid: PatchGrid


class ImageCodec:
    """Reads and prepares images for one package. Safe to use from several threads."""

    def __init__(self, spec: ImageSpec) -> None:
        self.spec = spec
        self._mean = np.array(spec.mean, np.float32)
        self._std = np.array(spec.std, np.float32)
        self._resample = Image.Resampling[spec.resample.upper()]

    def encode(self, data: bytes, limits: ImageLimits, field: str) -> EncodedImage:
        """Return the pixel values of an image file. Raises `InvalidInputError` as `read_picture` does."""
        return self.prepare(read_picture(data, limits, field))

    def prepare(self, picture: Image.Image) -> EncodedImage:
        """Return the pixel values of an RGB picture: resized, cropped, rescaled, normalised."""
        resized = _resized(picture.size, self.spec.resize)
        part = _cropped(resized, self.spec.crop)
        pixels = np.asarray(_render(picture, resized, part, self._resample), np.float32)
        values = (pixels * np.float32(self.spec.rescale_factor) - self._mean) / self._std
        return EncodedImage(np.ascontiguousarray(values.transpose(2, 0, 1)), self._grid(picture.size, resized, part))

    def _grid(self, original: Size, resized: Size, part: tuple[int, int, int, int]) -> PatchGrid:
        across, down = original[0] / resized[0], original[1] / resized[1]
        left, top, right, bottom = part
        return PatchGrid(
            rows=self.spec.patch_rows,
            columns=self.spec.patch_columns,
            image_width=original[0],
            image_height=original[1],
            left=left * across,
            top=top * down,
            width=(right - left) * across,
            height=(bottom - top) * down,
        )


def _resized(size: Size, resize: Size | int | None) -> Size:
    """Return the width and height after resizing."""
    if resize is None:
        return size
    if not isinstance(resize, int):
        return resize[1], resize[0]
    width, height = size
    longer = int(resize * max(size) / min(size))
    return (resize, longer) if width <= height else (longer, resize)


def _cropped(size: Size, crop: Size | None) -> tuple[int, int, int, int]:
    """Return the left, top, right and bottom edge of the middle part; beyond 0 or `size` where it is larger."""
    width, height = size
    crop_height, crop_width = crop or (height, width)
    left = (width - crop_width) // 2
    top = (height - crop_height) // 2
    return left, top, left + crop_width, top + crop_height


def _render(
    picture: Image.Image, resized: Size, part: tuple[int, int, int, int], resample: Image.Resampling
) -> Image.Image:
    """Return the `part` of the picture once `resized`; where that is huge, what lies outside isn't resized.

    Of a box Pillow may take the two directions in the other order than of the whole, and rounds between them: on
    hard edges a bicubic level is then up to 26 of 255 away.
    """
    if resized[0] * resized[1] <= MOST_RESIZED_PIXELS:
        return picture.resize(resized, resample).crop(part)
    left, top, right, bottom = part
    inner = max(left, 0), max(top, 0), min(right, resized[0]), min(bottom, resized[1])
    across, down = picture.size[0] / resized[0], picture.size[1] / resized[1]
    box = (inner[0] * across, inner[1] * down, inner[2] * across, inner[3] * down)
    shown = picture.resize((inner[2] - inner[0], inner[3] - inner[1]), resample, box=box)
    if inner == part:
        return shown
    padded = Image.new("RGB", (right - left, bottom - top))
    padded.paste(shown, (inner[0] - left, inner[1] - top))
    return padded

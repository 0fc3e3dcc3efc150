"""A picture from an image file: whatever its mode, as the RGB that a person sees."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from regard.errors import InvalidInputError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF")
"""The formats that are read, by Pillow's names; nothing else is even tried."""
# Pillow warns of pictures that `ImageLimits` are for. Once for all, as the filters are those of every thread.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """The largest image that is read: bytes of its file, and pixels of its picture."""

    max_bytes: int
    max_pixels: int


def read_picture(data: bytes, limits: ImageLimits, field: str) -> Image.Image:
    """Return the picture in an image file, in mode RGB.

    Of an animation it is the first frame; EXIF orientation is applied; what is transparent shows
    white; 16-bit greys are scaled to 8 bits. Raises `InvalidInputError`, naming `field`, for a file
    or a picture beyond `limits` (before it is decoded), and for what is no image, is damaged, or ends too early.
    """
    if not data:
        raise InvalidInputError(f"{field} is empty; send the bytes of a JPEG, PNG, WebP or GIF file", field=field)
    if len(data) > limits.max_bytes:
        raise InvalidInputError(
            f"{field} has {len(data)} bytes; an image may have at most {limits.max_bytes}; make it smaller", field=field
        )
    picture = _open(data, limits, field)
    width, height = picture.size
    if width * height > limits.max_pixels:
        raise _too_many_pixels(f"{width} by {height}, which is {width * height} pixels", limits, field)
    try:
        picture.load()
        return _to_rgb(_upright(picture))
    except Image.DecompressionBombError as error:
        raise _too_many_pixels("too many pixels", limits, field) from error
    except Exception as error:  # decoders raise whatever they meet in a damaged file
        raise InvalidInputError(
            f"{field} is a {picture.format} file that can't be decoded: it is damaged or ends too early", field=field
        ) from error


def _open(data: bytes, limits: ImageLimits, field: str) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise _too_many_pixels("far too many pixels", limits, field) from error
    except Exception as error:  # decoders raise whatever they meet in a damaged file
        raise InvalidInputError(
            f"{field} is not an image that can be read; send a JPEG, PNG, WebP or GIF file", field=field
        ) from error


def _too_many_pixels(found: str, limits: ImageLimits, field: str) -> InvalidInputError:
    return InvalidInputError(
        f"{field} has {found}; an image may have at most {limits.max_pixels}; make it smaller", field=field
    )


def _upright(picture: Image.Image) -> Image.Image:
    """Apply the EXIF orientation; EXIF that can't be read is ignored, as browsers do."""
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:
        return picture


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):
        grey = np.asarray(picture).astype(np.float64) / 257
        return Image.fromarray(grey.round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        opaque = picture.convert("RGBA")
        white = Image.new("RGBA", opaque.size, "white")
        return Image.alpha_composite(white, opaque).convert("RGB")
    return picture.convert("RGB")

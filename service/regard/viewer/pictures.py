"""Images small enough to be embedded in a page."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

from PIL import Image, ImageOps

LONGEST_SIDE = 800
_JPEG_QUALITY = 90


@dataclass(frozen=True, slots=True)
class Picture:
    """An image as a data URI, and the size in pixels that it had before it was scaled down."""

    uri: str
    width: int
    height: int


def embed(image: bytes) -> Picture:
    """Return an image file, as it is looked at, scaled down to at most 800 pixels a side.

    The EXIF orientation is applied, transparency lies on white, and of an animation the first frame
    is taken. What was small and without loss stays so. Raises `ValueError` for what Pillow can't read.
    """
    try:
        with Image.open(io.BytesIO(image)) as opened:
            lossless = opened.format != "JPEG" and max(opened.size) <= LONGEST_SIDE
            upright = ImageOps.exif_transpose(opened)
            width, height = upright.size
            upright.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
            flat = _on_white(upright)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError("the image can't be read") from error
    written = io.BytesIO()
    if lossless:
        flat.save(written, "PNG", optimize=True)
    else:
        flat.save(written, "JPEG", quality=_JPEG_QUALITY)
    kind = "png" if lossless else "jpeg"
    return Picture(f"data:image/{kind};base64,{base64.b64encode(written.getvalue()).decode('ascii')}", width, height)


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    paper = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(paper, layer).convert("RGB")

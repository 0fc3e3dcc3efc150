"""Where the patches that a model sees lie in the image that a person sees."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PatchGrid:
    """The patches of an image, row by row, in pixels of the image with its EXIF orientation applied.

    They divide the part of the image that starts at `left`, `top` and is `width` by `height` into
    `rows` of equal height and `columns` of equal width. Where a model looks at more than the image,
    at a border of zeros around it, that part reaches beyond the image's edges.
    """

    rows: int
    columns: int
    image_width: int
    image_height: int
    left: float
    top: float
    width: float
    height: float

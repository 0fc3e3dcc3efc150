"""Attributions of an image, drawn over it."""

from __future__ import annotations

from regard.rpc.explaining import Explanation, Method, Subject, Wish
from regard.rpc.resources import Resources
from regard.vision.overlay import draw_overlays
from regard.vision.picture import ImageLimits


async def draw(
    resources: Resources, wish: Wish, image: bytes, subject: Subject, explanation: Explanation, field: str
) -> dict[Method, bytes]:
    """Return a PNG file of what each method tells over the image, in the threads; none if it isn't asked for."""
    grid = subject.parts.grid
    if grid is None or not wish.overlay:
        return {}
    limits = ImageLimits(resources.settings.max_image_bytes, resources.settings.max_image_pixels)
    maps = [weights.sum(axis=0) for weights in explanation.parts.weights.values()]
    drawn = await resources.offload(draw_overlays, image, limits, field, maps, grid)
    return dict(zip(explanation.parts.weights, drawn, strict=True))

"""Attributions of images, drawn over them."""

from __future__ import annotations

from regard.errors import InvalidInputError
from regard.rpc.attention import sized
from regard.rpc.explaining import Explanation, Method, Subject, Wish
from regard.rpc.resources import Resources
from regard.vision.overlay import draw_overlays
from regard.vision.picture import ImageLimits


class Overlays:
    """Draws over the images of one request, as long as its response has room: as much as for attention."""

    def __init__(self, resources: Resources, wish: Wish) -> None:
        self._resources = resources
        self._wish = wish
        self._max_bytes = self._left_bytes = resources.settings.max_attention_bytes

    async def draw(self, image: bytes, subject: Subject, explanation: Explanation, field: str) -> dict[Method, bytes]:
        """Return a PNG file of what each method tells over the image, in the threads; none if it isn't asked for.

        Raises `InvalidInputError`, naming `field`, for files that the response has no room for beside the others.
        """
        grid = subject.parts.grid
        if grid is None or not self._wish.overlay:
            return {}
        settings, weights = self._resources.settings, explanation.parts.weights
        limits = ImageLimits(settings.max_image_bytes, settings.max_image_pixels)
        maps = [one.sum(axis=0) for one in weights.values()]
        drawn = await self._resources.offload(draw_overlays, image, limits, field, maps, grid)
        self._take_room(sum(map(len, drawn)), field)
        return dict(zip(weights, drawn, strict=True))

    def _take_room(self, size: int, field: str) -> None:
        if size > self._left_bytes:
            raise InvalidInputError(
                f"{field}: what is drawn over it comes to {sized(size)}, and of the {sized(self._max_bytes)} that a "
                f"response may have of it {sized(self._left_bytes)} are left; send fewer images at once, ask for fewer "
                "methods, or for no overlay",
                field=field,
            )
        self._left_bytes -= size

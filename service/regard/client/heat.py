"""Where in an image a word's attention lies, pixel by pixel."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from regard.answers import AttentionMap
from regard.vision.upsampling import upsample


def patch_weights(attention_map: AttentionMap, query: int, head: int = 0) -> npt.NDArray[np.float32]:
    """Return one query's weights over the patches of an image, [rows, columns].

    `head` counts within the map, which has one after a reduction. The weights of special positions
    are left out, so these sum to less than 1. Raises `ValueError` for a map whose keys are no image.
    """
    grid = attention_map.key_grid
    if grid is None:
        raise ValueError("the keys of this map are no image's patches")
    patches = [place for place, key in enumerate(attention_map.keys) if not key.special][: grid.rows * grid.columns]
    return attention_map.dense()[head, query, patches].reshape(grid.rows, grid.columns)


def heat_map(attention_map: AttentionMap, query: int, head: int = 0) -> npt.NDArray[np.float32]:
    """Return `patch_weights` brought to the image's own size: float32 [image_height, image_width].

    Bilinear between the middles of patches; 0 where the model did not look.
    """
    weights = patch_weights(attention_map, query, head)
    grid = attention_map.key_grid
    assert grid is not None
    return upsample(weights, (grid.image_width, grid.image_height), (grid.left, grid.top, grid.width, grid.height))

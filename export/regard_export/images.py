"""From a checkpoint's image processor to the manifest's `ImageSpec`, proven on an image.

The processor is asked for its settings and then run beside them: one that does anything more than
they say gives other pixels, and is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from transformers import AutoImageProcessor

from regard.manifest import ImageSpec
from regard_export.errors import CheckpointError
from regard_export.pooling import POOLING_POSITION

PROCESSOR_FILE = "preprocessor_config.json"
LEADING = {0: (), 1: ("[CLS]",), 2: ("[CLS]", "[DISTILLATION]"), 5: ("[CLS]", *(f"[REGISTER{i}]" for i in range(1, 5)))}
PIXEL_TOLERANCE = 1.01 / 255
"""In units of the rescaled image: one step of a byte, for resampling that rounds the other way."""

Pixels = npt.NDArray[np.float32]


def read_processor(directory: Path) -> Any:
    """Load the image processor of a checkpoint, in its Pillow version; the service resizes with Pillow, too."""
    return AutoImageProcessor.from_pretrained(directory, local_files_only=True, backend="pil")


def describe(processor: Any) -> ImageSpec:
    """Say what a processor does; the patch grid is a single patch until `with_grid` knows better.

    Raises `CheckpointError` if it does what an `ImageSpec` can't say.
    """
    if getattr(processor, "do_pad", None):
        raise CheckpointError(f"{PROCESSOR_FILE} pads images (do_pad), which is unsupported")
    resize = _resize(processor) if processor.do_resize else None
    crop = _sides(processor.crop_size, "crop_size") if getattr(processor, "do_center_crop", None) else None
    result = crop or resize
    if not isinstance(result, tuple):
        raise CheckpointError(f"{PROCESSOR_FILE} makes images of varying sizes; set size to a height and a width")
    spec = ImageSpec(
        height=result[0],
        width=result[1],
        resize=resize,
        resample=Image.Resampling(processor.resample).name.lower(),
        crop=crop,
        rescale_factor=processor.rescale_factor if processor.do_rescale else 1.0,
        mean=tuple(processor.image_mean) if processor.do_normalize else (0.0, 0.0, 0.0),
        std=tuple(processor.image_std) if processor.do_normalize else (1.0, 1.0, 1.0),
        leading=(),
        patch_rows=1,
        patch_columns=1,
    )
    _prove(spec, processor)
    return spec


def with_grid(spec: ImageSpec, positions: int, patch_size: int, *, pools: bool = False) -> ImageSpec:
    """Lay `positions` source positions out: patches of the image, and special positions before them.

    A query that `pools` them all is a position before these. An encoder that merges patches as it goes (Swin) ends
    with fewer, larger ones.
    """
    rows, columns = spec.height // patch_size, spec.width // patch_size
    while rows * columns > positions and rows > 1 and columns > 1:
        rows, columns = -(-rows // 2), -(-columns // 2)
    leading = LEADING.get(positions - rows * columns)
    if leading is None:
        raise CheckpointError(
            f"the encoder gives {positions} positions for {rows} by {columns} patches: which are which is unknown"
        )
    if pools:
        leading = (POOLING_POSITION, *leading)
    return spec.model_copy(update={"leading": leading, "patch_rows": rows, "patch_columns": columns})


def _resize(processor: Any) -> tuple[int, int] | int:
    size = _plain(processor.size)
    if size.keys() == {"shortest_edge"}:
        return int(size["shortest_edge"])
    return _sides(processor.size, "size")


def _sides(size: Any, name: str) -> tuple[int, int]:
    sides = _plain(size)
    if sides.keys() != {"height", "width"}:
        raise CheckpointError(
            f"{PROCESSOR_FILE} gives {name} as {', '.join(sorted(sides)) or 'nothing'}; it must be height and width "
            "(or, for size, shortest_edge)"
        )
    return int(sides["height"]), int(sides["width"])


def _plain(size: Any) -> dict[str, int]:
    return {name: value for name, value in dict(size or {}).items() if value is not None}


def _prove(spec: ImageSpec, processor: Any) -> None:
    random = np.random.default_rng(0)
    for height, width in ((61, 47), (spec.height, spec.width + 9), (2 * spec.height + 3, 3 * spec.width)):
        coarse = Image.fromarray(random.integers(0, 256, (height // 6 + 2, width // 6 + 2, 3), np.uint8))
        image = coarse.resize((width, height), Image.Resampling.BICUBIC)
        theirs = processor(image, return_tensors="np")["pixel_values"][0]
        ours = _apply(spec, image)
        if ours.shape != theirs.shape:
            raise CheckpointError(
                f"{PROCESSOR_FILE}: {type(processor).__name__} makes {theirs.shape}, not {ours.shape}"
            )
        scale = np.array(spec.std)[:, None, None] / (255 * spec.rescale_factor)
        worst = float(np.abs((ours - theirs) * scale).max())
        if worst > PIXEL_TOLERANCE:
            raise CheckpointError(
                f"{PROCESSOR_FILE}: {type(processor).__name__} does more than its settings say (pixels differ by "
                f"{worst:.3f} of the range); unsupported"
            )


def _apply(spec: ImageSpec, image: Image.Image) -> Pixels:
    """Do what `spec` says: an RGB image to [3, height, width]."""
    if spec.resize is not None:
        image = image.resize(_target(spec.resize, image.size), Image.Resampling[spec.resample.upper()])
    if spec.crop is not None:
        (height, width), (columns, rows) = spec.crop, image.size
        top, left = _start(rows, height), _start(columns, width)
        image = image.crop((left, top, left + width, top + height))
    pixels = np.asarray(image, np.float32).transpose(2, 0, 1) * np.float32(spec.rescale_factor)
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (spec.mean, spec.std))
    normalized: Pixels = (pixels - mean) / std
    return normalized


def _target(resize: tuple[int, int] | int, size: tuple[int, int]) -> tuple[int, int]:
    """Return width and height; the longer edge is rounded down."""
    if isinstance(resize, tuple):
        return resize[1], resize[0]
    width, height = size
    if width <= height:
        return resize, int(resize * height / width)
    return int(resize * width / height), resize


def _start(length: int, kept: int) -> int:
    """Return where the middle `kept` of `length` starts; before the edge, if there are fewer."""
    return (length - kept) // 2 if length >= kept else -((kept - length + 1) // 2)

"""Scenes of coloured shapes, each with the caption that describes it and every object's box.

A scene holds one to four objects, no two of the same colour and shape, on a muted background with
noise, specks and thin lines in greys that are never mentioned. Its caption is a function of what
is in it: objects come in the order of `COLOURS`, then of `SHAPES`; each is related to the one before
it along the axis on which their centres lie further apart, and a lone object is given a place.

    python export/training/scenes.py build/scenes --count 12
"""

from __future__ import annotations

import argparse
import colorsys
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

SIDE = 192
"""Width and height of a scene, in pixels."""

COLOURS = {
    "red": (212, 42, 46),
    "orange": (244, 132, 34),
    "yellow": (248, 212, 58),
    "green": (52, 158, 74),
    "cyan": (58, 196, 204),
    "blue": (44, 84, 208),
    "purple": (132, 64, 176),
    "pink": (242, 124, 178),
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
SIZES = {"small": (0.085, 0.105), "large": (0.145, 0.18)}
"""The range of an object's half width, in units of the scene's side."""
HELD_OUT = frozenset({("red", "star"), ("blue", "triangle"), ("yellow", "ring"), ("green", "cross")})
"""Combinations of colour and shape that no training scene holds."""

LEFT, RIGHT, ABOVE, BELOW = "to the left of", "to the right of", "above", "below"
MIRRORED = {LEFT: RIGHT, RIGHT: LEFT, ABOVE: ABOVE, BELOW: BELOW}
PLACES = (
    ("in the top left", "at the top", "in the top right"),
    ("on the left", "in the middle", "on the right"),
    ("in the bottom left", "at the bottom", "in the bottom right"),
)

_CLEARLY = 1.35
"""By how much the longer of two distances must exceed the shorter for a relation to be plain."""
_GAP = 0.03
_MARGIN = 0.02
_SUPERSAMPLING = 3

Box = tuple[float, float, float, float]
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class SceneObject:
    """One shape. `box` is its left, top, right and bottom edge, in pixels."""

    size: str
    colour: str
    shape: str
    box: Box

    @property
    def kind(self) -> tuple[str, str]:
        """Its colour and shape, which no other object of its scene shares."""
        return self.colour, self.shape

    @property
    def centre(self) -> tuple[float, float]:
        """The x and y of its middle, in pixels."""
        left, top, right, bottom = self.box
        return (left + right) / 2, (top + bottom) / 2

    @property
    def words(self) -> str:
        """Its name in a caption."""
        return f"a {self.size} {self.colour} {self.shape}"


@dataclass(frozen=True)
class Scene:
    """A picture [SIDE, SIDE, 3] and what is in it, in the order of its caption."""

    pixels: Pixels
    objects: tuple[SceneObject, ...]

    @property
    def image(self) -> Image.Image:
        """The picture."""
        return Image.fromarray(self.pixels)

    @property
    def relations(self) -> tuple[str, ...]:
        """How each object but the last stands to the next."""
        return tuple(relation(one, other) for one, other in zip(self.objects, self.objects[1:], strict=False))

    @property
    def caption(self) -> str:
        """The one caption that is right for this scene."""
        first, *rest = self.objects
        if not rest:
            return f"{first.words} {place(first)}"
        caption = first.words
        for index, (how, other) in enumerate(zip(self.relations, rest, strict=True)):
            caption += f"{', which is' if index else ''} {how} {other.words}"
        return caption

    def mirrored(self) -> Scene:
        """Return the scene with left and right exchanged; every shape is its own mirror image."""
        objects = tuple(replace(one, box=_mirror(one.box)) for one in self.objects)
        return Scene(np.ascontiguousarray(self.pixels[:, ::-1]), objects)


def relation(one: SceneObject, other: SceneObject) -> str:
    """Return how `one` stands to `other`, along the axis on which their centres lie further apart."""
    (x, y), (other_x, other_y) = one.centre, other.centre
    if abs(x - other_x) >= abs(y - other_y):
        return LEFT if x < other_x else RIGHT
    return ABOVE if y < other_y else BELOW


def place(one: SceneObject) -> str:
    """Return which ninth of the scene an object's middle lies in."""
    x, y = one.centre
    return PLACES[min(2, int(3 * y / SIDE))][min(2, int(3 * x / SIDE))]


def draw(seed: int, *, objects: int | None = None, held_out: bool = False) -> Scene:
    """Draw the scene of `seed`, with one to four objects or as many as asked for.

    Without `held_out` no object is one of the combinations `HELD_OUT`; with it, at least one is.
    """
    rng = random.Random(f"{seed}/{held_out}")
    count = objects or rng.choices((1, 2, 3, 4), (2, 3, 3, 3))[0]
    while True:
        placed = _place(rng, _kinds(rng, count, held_out=held_out))
        if placed is not None:
            break
    return Scene(_paint(placed, rng), placed)


def _kinds(rng: random.Random, count: int, *, held_out: bool) -> list[tuple[str, str]]:
    every = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    kinds = rng.sample([kind for kind in every if kind not in HELD_OUT], count)
    if held_out:
        kinds[0] = rng.choice(sorted(HELD_OUT))
    return sorted(kinds, key=every.index)


def _place(rng: random.Random, kinds: list[tuple[str, str]]) -> tuple[SceneObject, ...] | None:
    """Give each kind a size and a box, or return None if some come too close or stand unclearly."""
    placed: list[SceneObject] = []
    for colour, shape in kinds:
        size = rng.choice(tuple(SIZES))
        half = rng.uniform(*SIZES[size])
        for _ in range(20):
            x, y = (rng.uniform(half + _MARGIN, 1 - half - _MARGIN) for _ in range(2))
            box = tuple(SIDE * edge for edge in (x - half, y - half, x + half, y + half))
            one = SceneObject(size, colour, shape, (box[0], box[1], box[2], box[3]))
            clear = _is_related(placed[-1], one) if placed else len(kinds) > 1 or _is_placed(one)
            if clear and not any(_touch(one, other) for other in placed):
                placed.append(one)
                break
        else:
            return None
    return tuple(placed)


def _touch(one: SceneObject, other: SceneObject) -> bool:
    gap = _GAP * SIDE
    left, top, right, bottom = one.box
    other_left, other_top, other_right, other_bottom = other.box
    return (
        left < other_right + gap and other_left < right + gap and top < other_bottom + gap and other_top < bottom + gap
    )


def _is_related(one: SceneObject, other: SceneObject) -> bool:
    distances = sorted(abs(a - b) for a, b in zip(one.centre, other.centre, strict=True))
    return distances[1] > _CLEARLY * distances[0]


def _is_placed(one: SceneObject) -> bool:
    """Tell whether a middle lies well within its ninth."""
    return all(abs(3 * at / SIDE - line) > 0.12 for at in one.centre for line in (1, 2))


def _mirror(box: Box) -> Box:
    left, top, right, bottom = box
    return SIDE - right, top, SIDE - left, bottom


def _paint(objects: tuple[SceneObject, ...], rng: random.Random) -> Pixels:
    noise = np.random.default_rng(rng.getrandbits(64))
    image = Image.fromarray(_background(rng, noise))
    _clutter(ImageDraw.Draw(image), rng)
    for one in objects:
        _paint_object(image, one, rng)
    pixels = np.asarray(image, np.float32)
    pixels = pixels + rng.uniform(0, 9) * noise.standard_normal(pixels.shape, np.float32)
    return pixels.clip(0, 255).astype(np.uint8)


def _muted(rng: random.Random) -> npt.NDArray[np.float32]:
    light = rng.random() < 0.7
    value = rng.uniform(0.72, 0.97) if light else rng.uniform(0.12, 0.36)
    return np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0, 0.14), value), np.float32) * 255


def _background(rng: random.Random, noise: np.random.Generator) -> Pixels:
    """Return a plain, graded, striped or cloudy background in two muted colours."""
    first = _muted(rng)
    second = (first + (np.array(rng.choice((-1, 1)) * rng.uniform(8, 34), np.float32))).clip(0, 255)
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32) / SIDE
    angle = rng.uniform(0, 2 * math.pi)
    along = x * math.cos(angle) + y * math.sin(angle)
    match rng.choice(("plain", "graded", "striped", "cloudy")):
        case "plain":
            share = np.zeros_like(x)
        case "graded":
            share = (along - along.min()) / (along.max() - along.min())
        case "striped":
            share = 0.5 + 0.5 * np.sin(2 * math.pi * rng.uniform(3, 9) * along)
        case _:
            small = Image.fromarray(noise.integers(0, 256, (6, 6), np.uint8))
            share = np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float32) / 255
    mixed = first + share[..., None] * (second - first)
    return mixed.clip(0, 255).astype(np.uint8)


def _clutter(draw: ImageDraw.ImageDraw, rng: random.Random) -> None:
    for _ in range(rng.randrange(5)):
        ends = [rng.uniform(0, SIDE) for _ in range(4)]
        draw.line(ends, fill=_grey(rng), width=1)
    for _ in range(rng.randrange(24)):
        x, y, radius = rng.uniform(0, SIDE), rng.uniform(0, SIDE), rng.uniform(0.5, 1.6)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=_grey(rng))


def _grey(rng: random.Random) -> tuple[int, int, int]:
    value = rng.randrange(60, 200)
    return value, value, value


def _paint_object(image: Image.Image, one: SceneObject, rng: random.Random) -> None:
    """Paint an antialiased shape that fills its box, in a shade of its colour."""
    left, top = int(one.box[0]), int(one.box[1])
    side = math.ceil(one.box[2]) - left + 1
    mask = Image.new("L", (side * _SUPERSAMPLING,) * 2)
    x, y = ((at - corner) * _SUPERSAMPLING for at, corner in zip(one.centre, (left, top), strict=True))
    half = (one.box[2] - one.box[0]) / 2 * _SUPERSAMPLING
    _draw_shape(ImageDraw.Draw(mask), one.shape, x, y, half)
    shade = rng.uniform(-18, 18)
    colour = tuple(int(min(255, max(0, part + shade + rng.uniform(-8, 8)))) for part in COLOURS[one.colour])
    smooth = mask.resize((side, side), Image.Resampling.BOX)
    image.paste(Image.new("RGB", (side, side), colour), (left, top), smooth)


def _draw_shape(draw: ImageDraw.ImageDraw, shape: str, x: float, y: float, half: float) -> None:
    box = (x - half, y - half, x + half, y + half)
    match shape:
        case "circle":
            draw.ellipse(box, fill=255)
        case "ring":
            draw.ellipse(box, fill=255)
            inner = 0.52 * half
            draw.ellipse((x - inner, y - inner, x + inner, y + inner), fill=0)
        case "square":
            draw.rectangle(box, fill=255)
        case "triangle":
            draw.polygon([(x, y - half), (x + half, y + half), (x - half, y + half)], fill=255)
        case "cross":
            arm = 0.34 * half
            draw.rectangle((x - half, y - arm, x + half, y + arm), fill=255)
            draw.rectangle((x - arm, y - half, x + arm, y + half), fill=255)
        case "star":
            draw.polygon(list(_star(x, y, half)), fill=255)


def _star(x: float, y: float, half: float) -> Iterator[tuple[float, float]]:
    """Yield the ten corners of a five-pointed star that fills its box."""
    corners = []
    for corner in range(10):
        radius = 1.0 if corner % 2 == 0 else 0.42
        angle = math.pi * corner / 5
        corners.append((radius * math.sin(angle), -radius * math.cos(angle)))
    xs, ys = zip(*corners, strict=True)
    middle = (max(ys) + min(ys)) / 2
    for across, down in corners:
        yield x + half * across / max(xs), y + half * (down - middle) / (max(ys) - middle)


def main() -> None:
    """Write some scenes and print their captions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="the directory that the pictures are written to")
    parser.add_argument("--count", type=int, default=12, help="how many (default: 12)")
    parser.add_argument("--seed", type=int, default=0, help="the first scene's seed (default: 0)")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    for seed in range(options.seed, options.seed + options.count):
        scene = draw(seed)
        file = options.output / f"scene-{seed}.png"
        scene.image.save(file)
        print(f"{file}\t{scene.caption}")


if __name__ == "__main__":
    main()

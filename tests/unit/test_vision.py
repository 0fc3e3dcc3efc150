"""Odd images, each a right answer or a clear refusal; and where patches and maps lie in them."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from regard.errors import InvalidInputError
from regard.vision.codec import ImageCodec
from regard.vision.picture import ImageLimits, read_picture
from regard.vision.upsampling import upsample

from .packages import IMAGE

LIMITS = ImageLimits(max_bytes=1 << 20, max_pixels=4_000_000)
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def file_of(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """Return an image as a file's bytes."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def halves(mode: str = "RGB") -> Image.Image:
    """Return a picture 8 wide and 4 high whose left half is red and whose right half is blue."""
    image = Image.new("RGB", (8, 4), RED)
    image.paste(BLUE, (4, 0, 8, 4))
    return image.convert(mode)


def read(data: bytes, limits: ImageLimits = LIMITS) -> Image.Image:
    """Read a picture as an input of a request."""
    return read_picture(data, limits, "images[0]")


def refusal(data: bytes, limits: ImageLimits = LIMITS) -> str:
    """Return the message of the refusal that a file meets."""
    with pytest.raises(InvalidInputError) as caught:
        read(data, limits)
    assert caught.value.field == "images[0]"
    assert caught.value.message.startswith("images[0]")
    return caught.value.message


def near(colour: Any, expected: tuple[int, int, int], tolerance: int = 12) -> bool:
    """Tell whether two colours look alike, as far as a lossy format keeps them."""
    return bool(np.abs(np.subtract(colour, expected)).max() <= tolerance)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_every_format_is_read(kind: str) -> None:
    """The pictures of the four formats are the same to the eye."""
    options = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    picture = read(file_of(halves(), kind, **options))
    assert (picture.mode, picture.size) == ("RGB", (8, 4))
    assert near(picture.getpixel((0, 0)), RED)
    assert near(picture.getpixel((7, 3)), BLUE)


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA", "CMYK"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    """Greys, palettes, alpha and print colours are turned into what a person sees."""
    image = Image.new("RGB", (4, 4), (200, 200, 200) if mode != "1" else WHITE).convert(mode)
    picture = read(file_of(image, "JPEG" if mode == "CMYK" else "PNG"))
    assert picture.mode == "RGB"
    assert near(picture.getpixel((1, 1)), WHITE if mode == "1" else (200, 200, 200))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    """However the camera was held, the picture stands upright, as Pillow's own viewer shows it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = read(file_of(halves(), exif=exif))
    corner = {1: RED, 2: BLUE, 3: BLUE, 4: RED, 5: RED, 6: RED, 7: BLUE, 8: BLUE}[orientation]
    assert turned.size == ((8, 4) if orientation < 5 else (4, 8))
    assert turned.getpixel((0, 0)) == corner


def test_sixteen_bit_greys_are_scaled_not_clipped() -> None:
    """A 16-bit grey of one half is an 8-bit grey of one half."""
    image = Image.fromarray(np.full((4, 4), 32896, np.uint16))
    assert read(file_of(image)).getpixel((2, 2)) == (128, 128, 128)


def test_transparency_shows_white() -> None:
    """What is transparent is white, half of it half; in a palette as well."""
    image = Image.new("RGBA", (2, 1), (*RED, 0))
    image.putpixel((1, 0), (0, 0, 0, 128))
    palette = Image.new("P", (1, 1))
    palette.putpalette([255, 0, 0])
    assert [read(file_of(image)).getpixel((x, 0)) for x in (0, 1)] == [WHITE, (127, 127, 127)]
    assert read(file_of(palette, transparency=0)).getpixel((0, 0)) == WHITE


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_an_animation_is_its_first_frame(kind: str) -> None:
    """Later frames are not looked at."""
    first, second = Image.new("RGB", (5, 5), GREEN), Image.new("RGB", (5, 5), RED)
    options = {"lossless": True} if kind == "WEBP" else {}
    picture = read(file_of(first, kind, save_all=True, append_images=[second], **options))
    assert near(picture.getpixel((2, 2)), GREEN)


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1)])
@pytest.mark.parametrize("resize", [(32, 48), 40])
def test_any_shape_is_brought_to_the_models(size: tuple[int, int], resize: Any) -> None:
    """A pixel and a thread of pixels become what the model takes, whether squeezed or cropped."""
    spec = IMAGE.model_copy(update={"resize": resize, "crop": (32, 48)})
    encoded = ImageCodec(spec).encode(file_of(Image.new("RGB", size, GREEN)), LIMITS, "images[0]")
    assert encoded.pixel_values.shape == (3, 32, 48)
    assert np.isfinite(encoded.pixel_values).all()
    assert (encoded.grid.image_width, encoded.grid.image_height) == size


def test_no_image_is_refused() -> None:
    """Nothing, a text, and a format that isn't read are told what would be."""
    assert "empty" in refusal(b"")
    assert "not an image" in refusal(b"<svg></svg>")
    assert "JPEG, PNG, WebP or GIF" in refusal(file_of(halves(), "BMP"))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_a_truncated_file_is_refused(kind: str) -> None:
    """A file that ends in the middle is no picture, whatever its header says."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    data = file_of(noise, kind)
    assert any(word in refusal(data[: len(data) // 2]) for word in ("damaged", "not an image"))


def bomb(side: int) -> bytes:
    """Return a file of a few bytes that claims a picture of `side` by `side` pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_a_bomb_is_refused_before_it_is_decoded() -> None:
    """A few bytes that claim a picture of many pixels are refused by what they claim."""
    for side, expected in ((3000, "3000 by 3000, which is 9000000 pixels"), (60_000, "far too many pixels")):
        message = refusal(bomb(side))
        assert expected in message
        assert "at most 4000000" in message


READING = """
import sys
from regard.errors import InvalidInputError
from regard.vision.picture import ImageLimits, read_picture
try:
    read_picture(sys.stdin.buffer.read(), ImageLimits(1 << 20, 4_000_000), "image")
except InvalidInputError as error:
    print(error.message)
"""


def test_a_refused_picture_leaves_no_warning() -> None:
    """Pillow warns of pictures of as many pixels as this one, in words that would stand bare in a server's log."""
    done = subprocess.run([sys.executable, "-c", READING], input=bomb(12_000), capture_output=True, check=True)
    assert b"12000 by 12000, which is 144000000 pixels" in done.stdout
    assert done.stderr == b""


def test_a_long_file_is_refused_by_its_length() -> None:
    """The limit of bytes holds before anything is looked at."""
    assert "has 2000 bytes; an image may have at most 1000" in refusal(bytes(2000), ImageLimits(1000, 4_000_000))


def test_the_grid_of_a_crop_lies_in_the_image() -> None:
    """A middle crop of a wide picture covers its middle, in the picture's own pixels."""
    spec = IMAGE.model_copy(update={"resize": 32, "crop": (32, 32), "width": 32, "patch_columns": 2})
    grid = ImageCodec(spec).prepare(Image.new("RGB", (200, 100))).grid
    assert (grid.left, grid.top, grid.width, grid.height) == (50, 0, 100, 100)


def test_a_crop_beyond_the_image_is_padded_with_zeros() -> None:
    """Where the image ends, black begins, and the grid says that it reaches beyond."""
    spec = IMAGE.model_copy(update={"resize": None, "crop": (32, 48)})
    encoded = ImageCodec(spec).prepare(Image.new("RGB", (48, 16), WHITE))
    assert (encoded.grid.top, encoded.grid.height) == (-8, 32)
    rows = encoded.pixel_values[0, :, 0]
    assert [float(rows[0]), float(rows[16]), float(rows[31])] == [-1, 1, -1]


def test_upsampling_is_bilinear_between_middles_and_zero_outside() -> None:
    """Pillow's bilinear enlargement gives the same map; around a crop there is nothing."""
    weights = np.random.default_rng(1).random((4, 6), dtype=np.float32)
    whole = upsample(weights, (60, 40), (0, 0, 60, 40))
    expected = np.asarray(Image.fromarray(weights).resize((60, 40), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(whole, expected, atol=1e-5)
    cropped = upsample(weights, (60, 40), (10, 0, 40, 40))
    assert not cropped[:, :10].any()
    assert not cropped[:, 50:].any()
    assert cropped[:, 10:50].all()

from __future__ import annotations

import base64
import io

import pytest
from PIL import Image

from regard.viewer.pictures import LONGEST_SIDE, embed

from .answers import picture


def opened(uri: str) -> Image.Image:
    """Return the image of a data URI."""
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_a_small_picture_stays_as_it_was():
    """A small image without loss is embedded pixel by pixel."""
    given = picture(240, 160)

    embedded = embed(given)

    assert embedded.uri.startswith("data:image/png;base64,")
    assert (embedded.width, embedded.height) == (240, 160)
    assert opened(embedded.uri).tobytes() == Image.open(io.BytesIO(given)).tobytes()


def test_a_large_picture_is_scaled_down():
    """A large image is embedded at 800 pixels a side, and its own size is remembered."""
    embedded = embed(picture(3000, 1500))

    assert embedded.uri.startswith("data:image/jpeg;base64,")
    assert (embedded.width, embedded.height) == (3000, 1500)
    assert opened(embedded.uri).size == (LONGEST_SIDE, LONGEST_SIDE // 2)


def test_orientation_is_applied():
    """An image that its EXIF data turns by a quarter is embedded as it is looked at."""
    exif = Image.Exif()
    exif[0x0112] = 6

    embedded = embed(picture(240, 160, "JPEG", exif=exif))

    assert (embedded.width, embedded.height) == (160, 240)
    assert opened(embedded.uri).size == (160, 240)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "I;16", "1"])
def test_every_kind_of_pixel_is_shown(mode):
    """Greyscale, palettes, CMYK, 16 bits and transparency all become a picture of red, green and blue."""
    written = io.BytesIO()
    Image.new(mode, (20, 10)).save(written, "TIFF" if mode == "CMYK" else "PNG")

    assert opened(embed(written.getvalue()).uri).mode == "RGB"


def test_transparency_lies_on_white():
    """A wholly transparent image is white."""
    written = io.BytesIO()
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(written, "PNG")

    assert opened(embed(written.getvalue()).uri).getpixel((2, 2)) == (255, 255, 255)


@pytest.mark.parametrize("broken", [b"", b"not an image", picture(240, 160)[:200]])
def test_what_is_no_image_is_refused(broken):
    """Bytes that aren't an image, and an image cut short, are refused."""
    with pytest.raises(ValueError, match="can't be read"):
        embed(broken)

"""One input, read: as the engine takes it, and as its attention is labelled."""

from __future__ import annotations

from dataclasses import dataclass

from regard.attention.axes import Passage, Patches
from regard.audio.codec import EncodedWindow
from regard.audio.frames import Frames
from regard.engine.source import Pixels, Sound, Source, Tokens
from regard.manifest import ImageSpec
from regard.text.codec import EncodedText
from regard.vision.codec import EncodedImage


@dataclass(frozen=True, slots=True)
class TextReading:
    """A text, or two, and its tokens."""

    text: str
    encoded: EncodedText

    @property
    def source(self) -> Source:
        """What the engine takes."""
        return Tokens(self.encoded.token_ids, self.encoded.token_types)

    @property
    def passage(self) -> Passage:
        """What the source axis runs over; made when asked for, so that only attention pays for it."""
        return Passage(self.text, self.encoded.segments, self.encoded.pair)

    @property
    def truncated(self) -> bool:
        """Whether the text was cut to the model's positions."""
        return self.encoded.truncated


@dataclass(frozen=True, slots=True)
class ImageReading:
    """An image's pixel values, and the patches that the model makes of them."""

    encoded: EncodedImage
    spec: ImageSpec

    @property
    def source(self) -> Source:
        """What the engine takes."""
        return Pixels(self.encoded.pixel_values, self.spec.positions)

    @property
    def passage(self) -> Patches:
        """What the source axis runs over."""
        return Patches(self.spec.leading, self.encoded.grid)

    @property
    def truncated(self) -> bool:
        """False: an image is resized, not cut."""
        return False


@dataclass(frozen=True, slots=True)
class SoundReading:
    """The features of a window of sound, and the frames that the model makes of them."""

    encoded: EncodedWindow

    @property
    def source(self) -> Source:
        """What the engine takes."""
        return Sound(self.encoded.input_features, self.encoded.frames.count)

    @property
    def passage(self) -> Frames:
        """What the source axis runs over."""
        return self.encoded.frames

    @property
    def truncated(self) -> bool:
        """False: a longer sound has more windows."""
        return False


Reading = TextReading | ImageReading | SoundReading

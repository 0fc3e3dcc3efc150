"""Sound to features, one window after the other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from regard.audio.features import LogMel
from regard.audio.frames import Frames
from regard.manifest import AudioSpec

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class EncodedWindow:
    """A part of a sound as the model takes it: `input_features` [mels, frames], and where it lies."""

    input_features: FloatArray
    frames: Frames


class AudioCodec:
    """Prepares sound for one package. Safe to use from several threads."""

    def __init__(self, spec: AudioSpec) -> None:
        self.spec = spec
        self._log_mel = LogMel(spec)

    def windows(self, samples: FloatArray) -> int:
        """Return how many windows `samples` [n], at the model's rate, make: they follow each other without overlap."""
        return -(-len(samples) // self.spec.window_samples)

    def encode(self, samples: FloatArray, window: int) -> EncodedWindow:
        """Return the features of one window of `samples`; the last has silence up to its end."""
        first = window * self.spec.window_samples
        part = samples[first : first + self.spec.window_samples]
        frames = Frames(
            count=self.spec.positions,
            start_s=first / self.spec.sampling_rate,
            end_s=(first + len(part)) / self.spec.sampling_rate,
            seconds_per_frame=self.spec.seconds_per_position,
        )
        return EncodedWindow(self._log_mel(part), frames)

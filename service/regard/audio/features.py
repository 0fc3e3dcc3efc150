"""Log-mel spectra, as Whisper's feature extractor makes them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from regard.manifest import AudioSpec

FloatArray = npt.NDArray[np.float32]

_LEAST_POWER = 1e-10
_RANGE = 8.0
"""Powers of ten below the loudest, where everything quieter is raised to."""
_LINEAR_MELS_PER_HZ = 3 / 200
_LOG_FROM_HZ = 1000.0
_MELS_PER_LOG = 27 / float(np.log(6.4))


class LogMel:
    """Turns sound into features for one package. Safe to use from several threads."""

    def __init__(self, spec: AudioSpec) -> None:
        self._spec = spec
        self._window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(spec.n_fft) / spec.n_fft)).astype(np.float32)
        self._filters = mel_filters(spec).astype(np.float32)

    def __call__(self, samples: FloatArray) -> FloatArray:
        """Return the features [mels, frames] of one window's `samples`, with silence up to its end.

        Frames stand around their samples, the sound mirrored at both ends (Radford et al., Robust
        Speech Recognition via Large-Scale Weak Supervision, 2022, section 2.2).
        """
        spec = self._spec
        padded = np.zeros(spec.window_samples, np.float32)
        padded[: len(samples)] = samples
        mirrored = np.pad(padded, spec.n_fft // 2, mode="reflect")
        frames = np.lib.stride_tricks.sliding_window_view(mirrored, spec.n_fft)[:: spec.hop_length][: spec.frames]
        spectra = np.fft.rfft(frames * self._window, axis=1)
        power = spectra.real**2 + spectra.imag**2
        logs = np.log10(np.maximum(self._filters @ power.T, _LEAST_POWER))
        return np.asarray((np.maximum(logs, logs.max() - _RANGE) + 4) / 4, np.float32)


def mel_filters(spec: AudioSpec) -> npt.NDArray[np.float64]:
    """Return the weights [mels, n_fft // 2 + 1] of each frequency in each band.

    Bands are triangles of area 1 over frequencies that are evenly spaced on Slaney's mel scale:
    linear up to 1 kHz, logarithmic above (Auditory Toolbox, 1998).
    """
    highest = _mels(spec.max_frequency_hz)
    edges = _hertz(np.linspace(0, highest, spec.mel_bins + 2))
    frequencies = np.linspace(0, spec.sampling_rate // 2, spec.n_fft // 2 + 1)
    lower, middle, upper = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (frequencies - lower) / (middle - lower), (upper - frequencies) / (upper - middle)
    return np.asarray(np.maximum(0, np.minimum(rising, falling)) * 2 / (upper - lower))


def _mels(hertz: float) -> float:
    if hertz < _LOG_FROM_HZ:
        return hertz * _LINEAR_MELS_PER_HZ
    return _LOG_FROM_HZ * _LINEAR_MELS_PER_HZ + float(np.log(hertz / _LOG_FROM_HZ)) * _MELS_PER_LOG


def _hertz(mels: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    bend = _LOG_FROM_HZ * _LINEAR_MELS_PER_HZ
    above = _LOG_FROM_HZ * np.exp((mels - bend) / _MELS_PER_LOG)
    return np.where(mels < bend, mels / _LINEAR_MELS_PER_HZ, above)

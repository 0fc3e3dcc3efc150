"""One channel of sound at a model's rate, from an audio file or from samples."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from regard.errors import InvalidInputError

FORMATS = frozenset({"WAV", "WAVEX", "RF64", "W64", "AIFF", "FLAC", "OGG", "MP3"})
"""The formats that are read, by libsndfile's names."""
RATES = range(1_000, 384_001)
"""The sampling rates that are taken, in Hz."""
_BLOCK_SAMPLES = 1 << 16
_LOUDEST = 1e6
"""Beyond it, a sample is no sound but a number of another kind."""

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class AudioLimits:
    """The largest sound that is read: bytes of its file or samples, and its length."""

    max_bytes: int
    max_s: float


def read_file(data: bytes, rate: int, limits: AudioLimits, field: str) -> FloatArray:
    """Return the samples [n] of an audio file, resampled to `rate`; the mean of its channels.

    Integers become fractions of the largest that they can be. Decoding ends at the limit, whatever
    the file says of its length. Raises `InvalidInputError`, naming `field`, for a file or a sound
    beyond `limits`, for what is no audio, is damaged, makes no sample, or holds numbers that are not finite.
    """
    _check_bytes(len(data), limits, field, "send the bytes of a WAV, FLAC, Ogg or MP3 file")
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            if file.format not in FORMATS:
                raise _unreadable(field)
            return _resampled(_blocks_of(file, field), file.samplerate, rate, limits, field)
    except soundfile.LibsndfileError as error:
        raise _unreadable(field) from error


def read_samples(data: bytes, sampling_rate: int, rate: int, limits: AudioLimits, field: str) -> FloatArray:
    """Return samples that come as little-endian float32, resampled to `rate`; raises as `read_file` does."""
    _check_bytes(len(data), limits, field, "send little-endian float32 samples")
    if len(data) % 4:
        raise InvalidInputError(
            f"{field} has {len(data)} bytes, which is no whole number of samples of 4 bytes; send float32", field=field
        )
    samples = np.frombuffer(data, "<f4").astype(np.float32, copy=False)
    blocks = (samples[start : start + _BLOCK_SAMPLES] for start in range(0, len(samples), _BLOCK_SAMPLES))
    return _resampled(blocks, sampling_rate, rate, limits, field)


def _check_bytes(count: int, limits: AudioLimits, field: str, advice: str) -> None:
    if count == 0:
        raise InvalidInputError(f"{field} is empty; {advice}", field=field)
    if count > limits.max_bytes:
        raise InvalidInputError(
            f"{field} has {count} bytes; audio may have at most {limits.max_bytes}; cut it, or send FLAC, Ogg or MP3",
            field=field,
        )


def _unreadable(field: str) -> InvalidInputError:
    return InvalidInputError(
        f"{field} is not audio that can be read; send a WAV, AIFF, FLAC, Ogg (Vorbis or Opus) or MP3 file", field=field
    )


def _blocks_of(file: soundfile.SoundFile, field: str) -> Iterator[FloatArray]:
    """Yield the mean of the channels, block by block."""
    try:
        while len(block := file.read(_BLOCK_SAMPLES, dtype="float32", always_2d=True)):
            yield block[:, 0] if block.shape[1] == 1 else block.mean(axis=1, dtype=np.float32)
    except soundfile.LibsndfileError as error:
        raise InvalidInputError(
            f"{field} is a {file.format} file that can't be decoded: it is damaged or ends too early", field=field
        ) from error


def _resampled(
    blocks: Iterator[FloatArray], sampling_rate: int, rate: int, limits: AudioLimits, field: str
) -> FloatArray:
    """Return all blocks at `rate`, so that no more than the limit is ever held."""
    if sampling_rate not in RATES:
        raise InvalidInputError(
            f"{field} has a sampling rate of {sampling_rate} Hz; it must be from {RATES.start} to {RATES.stop - 1}",
            field=field,
        )
    stream = None if sampling_rate == rate else soxr.ResampleStream(sampling_rate, rate, 1, dtype="float32")
    parts, count = [np.zeros(0, np.float32)], 0
    for block in blocks:
        if not np.all(np.abs(block) < _LOUDEST):
            raise InvalidInputError(
                f"{field} holds samples that are no sound: not finite, or beyond {_LOUDEST:g}; full scale is 1",
                field=field,
            )
        count += len(block)
        if count > limits.max_s * sampling_rate:
            raise InvalidInputError(
                f"{field} is longer than {limits.max_s:g} s, the most that is taken; cut it into parts", field=field
            )
        parts.append(block if stream is None else stream.resample_chunk(block))
    if stream is not None:
        parts.append(stream.resample_chunk(np.zeros(0, np.float32), last=True))
    samples = np.concatenate(parts)
    if not len(samples):
        raise InvalidInputError(
            f"{field} holds no sound: its length is {count / sampling_rate:g} s, less than a sample at {rate} Hz",
            field=field,
        )
    return samples

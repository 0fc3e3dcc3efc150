"""Sound in: files of every kind to samples, and samples to Whisper's features."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import soxr
from transformers import WhisperFeatureExtractor

from regard.audio.codec import AudioCodec
from regard.audio.features import LogMel, mel_filters
from regard.audio.sound import AudioLimits, read_file, read_samples
from regard.errors import InvalidInputError
from regard.manifest import AudioSpec

RATE = 16000
LIMITS = AudioLimits(max_bytes=8_000_000, max_s=60)
WHISPER = AudioSpec(
    sampling_rate=RATE, window_s=30, n_fft=400, hop_length=160, mel_bins=80, max_frequency_hz=8000.0, positions=1500
)
FloatArray = npt.NDArray[np.float32]


def sweep(seconds: float, rate: int = RATE, low: float = 80, high: float = 3000) -> FloatArray:
    """Return a tone that rises from `low` to `high` Hz."""
    at = np.arange(round(seconds * rate)) / rate
    return np.sin(2 * np.pi * (low + (high - low) * at / (2 * seconds)) * at).astype(np.float32) / 2


def speechlike(seconds: float) -> FloatArray:
    """Return harmonics of a pitch that wanders, in bursts, over a little noise."""
    at = np.arange(round(seconds * RATE)) / RATE
    phase = 2 * np.pi * np.cumsum(120 + 40 * np.sin(2 * np.pi * 0.8 * at)) / RATE
    voice = sum(np.sin(harmonic * phase) / harmonic for harmonic in range(1, 20))
    bursts = np.clip(np.sin(2 * np.pi * 3.3 * at), 0, None)
    noise = np.random.default_rng(0).standard_normal(len(at))
    return np.asarray(0.1 * voice * bursts + 0.001 * noise, np.float32)


SOUNDS: dict[str, FloatArray] = {
    "silence": np.zeros(RATE, np.float32),
    "one sample": np.full(1, 0.5, np.float32),
    "a click": np.eye(1, 2 * RATE, 777, dtype=np.float32)[0],
    "a tone": np.sin(2 * np.pi * 440 * np.arange(3 * RATE) / RATE).astype(np.float32),
    "a faint tone": 1e-4 * np.sin(2 * np.pi * 440 * np.arange(3 * RATE) / RATE).astype(np.float32),
    "noise": np.random.default_rng(1).standard_normal(5 * RATE).astype(np.float32),
    "a sweep": sweep(7.3),
    "speech, of a sort": speechlike(12.1),
    "exactly a window": speechlike(30),
    "more than a window": speechlike(34.5),
}


@pytest.mark.parametrize("name", SOUNDS)
def test_features_equal_those_of_the_extractor(name: str) -> None:
    """Within 1e-4, of the first window; the extractor cuts the others off."""
    expected = WhisperFeatureExtractor()(SOUNDS[name], sampling_rate=RATE, return_tensors="np").input_features[0]
    ours = AudioCodec(WHISPER).encode(SOUNDS[name], 0).input_features
    assert ours.shape == (80, 3000)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("bins", "window_s", "rate"), [(128, 30, RATE), (16, 1, RATE), (40, 5, 24000)])
def test_features_of_other_sizes_equal_those_of_the_extractor(bins: int, window_s: int, rate: int) -> None:
    """As of large-v3, with 128 bins; of short windows; of another rate."""
    theirs = WhisperFeatureExtractor(feature_size=bins, chunk_length=window_s, sampling_rate=rate)
    spec = WHISPER.model_copy(update={"mel_bins": bins, "window_s": window_s, "sampling_rate": rate})
    sound = speechlike(0.9)
    expected = theirs(sound, sampling_rate=rate, return_tensors="np").input_features[0]
    np.testing.assert_allclose(LogMel(spec)(sound), expected, atol=1e-4, rtol=0)
    np.testing.assert_allclose(mel_filters(spec), theirs.mel_filters.T, atol=1e-9)


def test_windows_follow_each_other() -> None:
    """Each equals the extractor's features of its own part, and knows when it is."""
    codec, sound = AudioCodec(WHISPER), speechlike(64.5)
    assert codec.windows(sound) == 3
    assert codec.windows(sound[: 30 * RATE]) == 1
    last = codec.encode(sound, 2)
    expected = WhisperFeatureExtractor()(sound[60 * RATE :], sampling_rate=RATE, return_tensors="np").input_features[0]
    np.testing.assert_allclose(last.input_features, expected, atol=1e-4, rtol=0)
    assert (last.frames.count, last.frames.start_s, last.frames.end_s) == (1500, 60, 64.5)
    assert last.frames.time_of(50) == pytest.approx(61)


def file_of(samples: FloatArray, rate: int = RATE, kind: str = "WAV", subtype: str | None = None) -> bytes:
    """Return an audio file."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


@pytest.mark.parametrize(
    ("kind", "subtype", "tolerance"),
    [
        ("WAV", "PCM_U8", 1 / 127),
        ("WAV", "PCM_16", 1 / 32767),
        ("WAV", "PCM_24", 1e-6),
        ("WAV", "PCM_32", 1e-6),
        ("WAV", "FLOAT", 0),
        ("WAV", "DOUBLE", 0),
        ("WAVEX", "PCM_16", 1 / 32767),
        ("RF64", "PCM_16", 1 / 32767),
        ("W64", "PCM_16", 1 / 32767),
        ("AIFF", "PCM_16", 1 / 32767),
        ("FLAC", "PCM_16", 1 / 32767),
        ("FLAC", "PCM_24", 1e-6),
    ],
)
def test_a_file_holds_what_was_written(kind: str, subtype: str, tolerance: float) -> None:
    """Every kind of file gives the samples back, as closely as it keeps them."""
    sound = sweep(1.0)
    read = read_file(file_of(sound, kind=kind, subtype=subtype), RATE, LIMITS, "audio")
    assert len(read) == pytest.approx(len(sound), abs=8)
    np.testing.assert_allclose(read[: len(sound)], sound[: len(read)], atol=tolerance, rtol=0)


@pytest.mark.parametrize(("kind", "subtype"), [("MP3", None), ("OGG", "VORBIS"), ("OGG", "OPUS")])
def test_what_is_coded_for_ears_sounds_like_what_was_written(kind: str, subtype: str | None) -> None:
    """Up to the delay that a coder adds."""
    sound = speechlike(1.0)
    read = read_file(file_of(sound, kind=kind, subtype=subtype), RATE, LIMITS, "audio")
    shifted = np.correlate(read, sound, mode="full")
    assert shifted.max() / (np.linalg.norm(read) * np.linalg.norm(sound)) > 0.97


def test_channels_are_mixed_down() -> None:
    """The mean of left and right, whatever their number."""
    left, right, behind = sweep(0.5), speechlike(0.5), sweep(0.5, low=500)
    for channels in ((left, right), (left, right, behind)):
        read = read_file(file_of(np.stack(channels, axis=1), subtype="FLOAT"), RATE, LIMITS, "audio")
        np.testing.assert_allclose(read, np.mean(channels, axis=0), atol=1e-6)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 96000])
def test_any_rate_becomes_the_models(rate: int) -> None:
    """A sweep that both rates can hold comes out as the same sweep made at the model's rate."""
    read = read_file(file_of(sweep(2.0, rate), rate, subtype="FLOAT"), RATE, LIMITS, "audio")
    expected = sweep(2.0)
    assert len(read) == pytest.approx(len(expected), abs=2)
    inner = slice(200, len(expected) - 200)
    np.testing.assert_allclose(read[inner], expected[inner], atol=2e-3)


def test_what_a_lower_rate_cannot_hold_is_taken_out() -> None:
    """A tone above half the model's rate is gone, instead of folded down."""
    at = np.arange(48000) / 48000
    high = np.sin(2 * np.pi * 11000 * at).astype(np.float32)
    assert np.abs(read_file(file_of(high, 48000), RATE, LIMITS, "audio")[500:-500]).max() < 1e-3


def test_a_long_file_is_resampled_as_a_whole() -> None:
    """Blocks leave no seams."""
    sound = speechlike(20.0)
    read = read_file(file_of(sound, 44100, subtype="FLOAT"), RATE, LIMITS, "audio")
    expected = soxr.resample(sound, 44100, RATE)
    assert abs(len(read) - len(expected)) <= 1
    np.testing.assert_allclose(read[: len(expected)], expected[: len(read)], atol=1e-5)


def test_samples_may_come_as_they_are() -> None:
    """Little-endian float32, of any rate."""
    sound = speechlike(1.0)
    np.testing.assert_array_equal(read_samples(sound.tobytes(), RATE, RATE, LIMITS, "audio"), sound)
    assert len(read_samples(sound.tobytes(), 48000, RATE, LIMITS, "audio")) == pytest.approx(RATE / 3, abs=1)


def _patched(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


WAV = file_of(sweep(1.0))
REFUSED: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "audio is empty; send the bytes of a WAV"),
    "text": (b"hello, this is no sound at all", "audio is not audio that can be read"),
    "a header alone": (WAV[:20], "audio is not audio that can be read"),
    "no samples": (file_of(np.zeros(0, np.float32)), "audio holds no sound: its length is 0 s, less than a sample"),
    "no samples of another rate": (file_of(np.zeros(0, np.float32), 48000), "audio holds no sound: its length is 0 s"),
    "less than a sample": (file_of(np.ones(1, np.float32), 48000), "audio holds no sound: its length is 2.0.*e-05 s"),
    "too much": (file_of(np.zeros(61 * RATE, np.float32), kind="FLAC"), "audio is longer than 60 s"),
    "a rate of 100": (file_of(np.zeros(100, np.float32), 100), "sampling rate of 100 Hz; it must be from 1000 to"),
    "infinity": (file_of(np.full(9, np.inf, np.float32), subtype="FLOAT"), "samples that are no sound"),
    "nan": (file_of(np.full(9, np.nan, np.float32), subtype="FLOAT"), "samples that are no sound"),
    "another kind": (file_of(sweep(0.1), kind="AU"), "audio is not audio that can be read"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_sound_is_refused(name: str) -> None:
    """The message names the field and says what is wrong."""
    data, message = REFUSED[name]
    with pytest.raises(InvalidInputError, match=message) as raised:
        read_file(data, RATE, LIMITS, "audio")
    assert raised.value.field == "audio"


def test_a_damaged_file_is_read_or_refused_but_never_worse() -> None:
    """Whatever bytes are broken in a file, the answer is sound or a refusal."""
    random = np.random.default_rng(0)
    for kind in ("WAV", "FLAC", "OGG", "MP3"):
        whole = file_of(speechlike(0.5), kind=kind)
        for _ in range(60):
            at = int(random.integers(0, len(whole) - 8))
            broken = _patched(whole, at, random.bytes(8))[: int(random.integers(8, len(whole)))]
            try:
                assert np.isfinite(read_file(broken, RATE, LIMITS, "audio")).all()
            except InvalidInputError as error:
                assert error.field == "audio"


@pytest.mark.parametrize(
    ("data", "rate", "message"),
    [
        (b"", RATE, "audio is empty; send little-endian float32 samples"),
        (b"12345", RATE, "has 5 bytes, which is no whole number of samples"),
        (b"1234", 0, "sampling rate of 0 Hz"),
        (np.zeros(RATE * 61, np.float32).tobytes(), RATE, "longer than 60 s"),
        (np.zeros(3_000_000, np.float32).tobytes(), RATE, "has 12000000 bytes; audio may have at most 8000000"),
    ],
    ids=["nothing", "half a sample", "no rate", "too long", "too large"],
)
def test_samples_that_can_not_be_are_refused(data: bytes, rate: int, message: str) -> None:
    """The message names the field and says what is wrong."""
    with pytest.raises(InvalidInputError, match=message):
        read_samples(data, rate, RATE, LIMITS, "audio")

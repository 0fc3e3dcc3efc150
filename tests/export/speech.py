"""Small random checkpoints of Whisper, with its real tokenizer and feature extractor, and sounds for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import transformers
from tokenizers import pre_tokenizers
from transformers import AddedToken, GenerationConfig, WhisperFeatureExtractor, WhisperTokenizer

from .checkpoints import _save

LANGUAGES = ("en", "fr", "de", "ja")
TASKS = ("translate", "transcribe")
RATE = 16000
WINDOW_S = 1
MELS = 16
WORDS = ("the", "and", "house", "is", "old")


def tokenizer() -> WhisperTokenizer:
    """Return a byte-level BPE of a few words, with Whisper's special tokens and its times in Whisper's order."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: index for index, letter in enumerate(alphabet)}
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        joined = "Ġ"
        for letter in word:
            if (joined, letter) not in merges:
                merges.append((joined, letter))
            joined += letter
            vocabulary.setdefault(joined, len(vocabulary))
    vocabulary["<|endoftext|>"] = len(vocabulary)
    made = WhisperTokenizer(vocab=vocabulary, merges=merges)
    special = ["startoftranscript", *LANGUAGES, *TASKS, "startoflm", "startofprev", "nospeech", "notimestamps"]
    made.add_tokens([AddedToken(f"<|{name}|>", special=True, normalized=False) for name in special], True)
    times = [f"<|{index * 0.02:.2f}|>" for index in range(51)]
    made.add_tokens([AddedToken(time, special=False, normalized=False) for time in times])
    return made


def save_whisper(directory: Path, *, multilingual: bool = True, **generation: Any) -> Path:
    """Write a Whisper of two plus two layers that hears a second at a time; return its directory."""
    words = tokenizer()
    ids = words.get_vocab()
    end, start, silent = (ids[f"<|{name}|>"] for name in ("endoftext", "startoftranscript", "notimestamps"))
    config = transformers.WhisperConfig(
        vocab_size=len(ids),
        num_mel_bins=MELS,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        max_source_positions=50 * WINDOW_S,
        max_target_positions=48,
        pad_token_id=end,
        bos_token_id=end,
        eos_token_id=end,
        decoder_start_token_id=start,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    model = transformers.WhisperForConditionalGeneration(config)
    named: dict[str, Any] = {"is_multilingual": multilingual}
    if multilingual:
        named["lang_to_id"] = {f"<|{code}|>": ids[f"<|{code}|>"] for code in LANGUAGES}
        named["task_to_id"] = {task: ids[f"<|{task}|>"] for task in TASKS}
        named["forced_decoder_ids"] = [[1, None], [2, ids["<|transcribe|>"]]]
    else:
        named["forced_decoder_ids"] = [[1, silent]]
    model.generation_config = GenerationConfig(
        decoder_start_token_id=start,
        eos_token_id=end,
        pad_token_id=end,
        bos_token_id=end,
        max_length=48,
        suppress_tokens=[ids["<|startoflm|>"], ids["<|startofprev|>"], ids["<|nospeech|>"], start],
        begin_suppress_tokens=[ids["Ġ"], end],
        no_timestamps_token_id=silent,
        prev_sot_token_id=ids["<|startofprev|>"],
        max_initial_timestamp_index=25,
        alignment_heads=[[0, 1], [1, 3]],
        return_timestamps=False,
        **named | generation,
    )
    directory.mkdir(parents=True, exist_ok=True)
    words.save_pretrained(directory)
    extractor = WhisperFeatureExtractor(feature_size=MELS, chunk_length=WINDOW_S, sampling_rate=RATE)
    extractor.save_pretrained(directory)
    return _save(model, directory, reads_text=False)


def chirp(seconds: float, seed: int = 0, rate: int = RATE) -> npt.NDArray[np.float32]:
    """Return a sweep of harmonics whose loudness comes and goes as that of syllables does, over some noise."""
    random = np.random.default_rng(seed)
    at = np.arange(round(seconds * rate)) / rate
    pitch = 110 + 60 * np.sin(2 * np.pi * (0.7 + 0.1 * seed) * at) + 20 * at
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    voice = sum(np.sin(harmonic * phase) / harmonic for harmonic in range(1, 12))
    loudness = 0.05 + np.clip(np.sin(2 * np.pi * 3.1 * at + seed), 0, None)
    return np.asarray(0.2 * voice * loudness + 0.003 * random.standard_normal(len(at)), np.float32)

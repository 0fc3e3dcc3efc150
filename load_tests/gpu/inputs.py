"""What the models are asked on the GPU, and the checkpoints in PyTorch that they are held to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoModelForImageClassification,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    VisionEncoderDecoderModel,
)

from regard.engine.source import Pixels, Source, Tokens
from regard.manifest import Manifest, Package, Task
from regard.text.codec import TextCodec

TEXTS = {
    Task.TRANSLATION: Path("tests/parity/data/sentences.en.txt"),
    Task.CLASSIFICATION: Path("tests/parity/data/utterances.en.txt"),
}
SEED = 5


def eager(checkpoint: Path, manifest: Manifest, *, device: str, dtype: torch.dtype, attention: str = "eager") -> Any:
    """Return the checkpoint in PyTorch on the device, exact in float32: without TF32."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    kinds: dict[tuple[Task, bool], Any] = {
        (Task.TRANSLATION, True): AutoModelForSeq2SeqLM,
        (Task.CAPTIONING, False): VisionEncoderDecoderModel,
        (Task.CLASSIFICATION, True): AutoModelForSequenceClassification,
        (Task.CLASSIFICATION, False): AutoModelForImageClassification,
    }
    kind = kinds[manifest.task, manifest.reads_text]
    return kind.from_pretrained(checkpoint, dtype=dtype, attn_implementation=attention).eval().to(device)


def real_sources(package: Package, count: int) -> list[Source]:
    """Return texts of the held-out data for the demonstration's models, and `random_sources` for all others."""
    if package.manifest.reads_text and package.manifest.name.startswith("demo-"):
        codec = TextCodec(package)
        lines = TEXTS[package.manifest.task].read_text("utf-8").splitlines()[:count]
        return [Tokens(codec.encode(line, truncate=True, field="text").token_ids) for line in lines]
    return random_sources(package, count, 3, 40)


def random_sources(package: Package, count: int, shortest: int, longest: int) -> list[Source]:
    """Return random tokens, of lengths evenly spread, or images of noise."""
    chance = np.random.default_rng(SEED)
    image = package.manifest.image
    if image is not None:
        shape = (3, image.height, image.width)
        return [Pixels(chance.standard_normal(shape).astype(np.float32), image.positions) for _ in range(count)]
    lengths = np.linspace(shortest, longest, count).astype(int)
    return [Tokens(chance.integers(2, 190, size=length)) for length in lengths]


def tensors_of(source: Source, device: str) -> dict[str, torch.Tensor]:
    """Return what PyTorch's model is given for one source."""
    if isinstance(source, Pixels):
        return {"pixel_values": torch.from_numpy(source.pixel_values)[None].to(device)}
    assert isinstance(source, Tokens)
    return {"input_ids": torch.from_numpy(source.input_ids)[None].to(device)}

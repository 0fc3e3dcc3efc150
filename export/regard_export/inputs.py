"""What a model reads: the source inputs of its graphs, and samples of them for the proof."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch

from regard.manifest import AudioSpec, ImageSpec

MOST_PROVEN = 1024
"""The widest window that samples are longer than: the eager model keeps all weights of all layers at once."""

Array = npt.NDArray[Any]
Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Example:
    """Inputs to trace a graph with: names, tensors, and the letters of the dimensions that vary."""

    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    dimensions: dict[str, dict[int, str]] = field(default_factory=dict)

    def add(self, name: str, tensor: torch.Tensor, dimensions: dict[int, str]) -> None:
        """Append an input."""
        self.tensors[name] = tensor
        self.dimensions[name] = dimensions


class Inputs(Protocol):
    """One kind of source. Its graph inputs are those that `example` names."""

    def example(self) -> Example:
        """Return inputs of two rows, of small and distinct sizes."""

    def arguments(self, inputs: Tensors) -> dict[str, torch.Tensor]:
        """Return what the model is called with, for a graph's inputs."""

    def samples(self) -> Iterator[dict[str, Array]]:
        """Yield batches of a graph's inputs."""

    def lengths(self, inputs: Mapping[str, Array]) -> Array:
        """Return how many source positions of every row [R] are real."""


@dataclass(frozen=True)
class TextInputs:
    """`input_ids` [R, S] int64 and `source_length` [R] int32, padded on the right.

    With `token_types`, `token_type_ids` [R, S] int64 as well: 0 for a first text, 1 for the second.
    """

    vocabulary_size: int
    max_tokens: int
    pad_token_id: int
    end_token_id: int | None
    token_types: bool = False
    window: int = 0
    """How many positions the layers see that don't see all."""

    @property
    def longest_sample(self) -> int:
        """How many tokens the longest sample has: more than a window, if it isn't too large to be proven."""
        return min(self.max_tokens, max(70, min(self.window, MOST_PROVEN) + 8))

    def example(self) -> Example:
        """Return two ragged rows."""
        example = Example()
        example.add("input_ids", torch.zeros(2, 7, dtype=torch.int64), {0: "R", 1: "S"})
        example.add("source_length", torch.tensor([7, 5], dtype=torch.int32), {0: "R"})
        if self.token_types:
            example.add("token_type_ids", torch.zeros(2, 7, dtype=torch.int64), {0: "R", 1: "S"})
        return example

    def arguments(self, inputs: Tensors) -> dict[str, torch.Tensor]:
        """Make the attention mask, int64 [R, S], that Transformers expects."""
        tokens, length = inputs["input_ids"], inputs["source_length"]
        positions = torch.arange(tokens.shape[1], dtype=length.dtype)
        mask = (positions[None] < length[:, None]).to(torch.int64)
        types = {"token_type_ids": inputs["token_type_ids"]} if self.token_types else {}
        return {"input_ids": tokens, "attention_mask": mask} | types

    def samples(self) -> Iterator[dict[str, Array]]:
        """Yield random tokens: ragged (with a row of one token), alone, of one token, and long."""
        random = np.random.default_rng(0)
        for lengths in ([9, 1, 6, 4], [5], [1], [self.longest_sample, 3]):
            tokens = random.integers(0, self.vocabulary_size, (len(lengths), max(lengths)))
            for row, length in enumerate(lengths):
                if self.end_token_id is not None:
                    tokens[row, length - 1] = self.end_token_id
                tokens[row, length:] = self.pad_token_id
            sample: dict[str, Array] = {
                "input_ids": tokens.astype(np.int64),
                "source_length": np.array(lengths, np.int32),
            }
            if self.token_types:
                sample["token_type_ids"] = np.where(
                    np.arange(max(lengths)) < sample["source_length"][:, None] // 2, 0, 1
                )
            yield sample

    def lengths(self, inputs: Mapping[str, Array]) -> Array:
        """Return `source_length`."""
        return inputs["source_length"]


@dataclass(frozen=True)
class PromptInputs(TextInputs):
    """`input_ids` [R, S] int64, padded on the right, which a decoder reads from left to right: no length is needed.

    Of `max_tokens`, samples leave some for what is written behind them.
    """

    def example(self) -> Example:
        """Return two rows."""
        example = Example()
        example.add("input_ids", torch.zeros(2, 7, dtype=torch.int64), {0: "R", 1: "S"})
        return example

    def arguments(self, inputs: Tensors) -> dict[str, torch.Tensor]:
        """Hand on the tokens."""
        return {"input_ids": inputs["input_ids"]}


@dataclass(frozen=True)
class PaddedTextInputs(TextInputs):
    """`input_ids` [R, S] int64, each row of `max_tokens`: padding on one `side` is read like any other token."""

    side: Literal["left", "right"] = "right"

    def example(self) -> Example:
        """Return two rows."""
        example = Example()
        example.add("input_ids", torch.zeros(2, self.max_tokens, dtype=torch.int64), {0: "R"})
        return example

    def arguments(self, inputs: Tensors) -> dict[str, torch.Tensor]:
        """Hand on the tokens, without a mask."""
        return {"input_ids": inputs["input_ids"]}

    def samples(self) -> Iterator[dict[str, Array]]:
        """Yield the same texts, padded to one length."""
        for sample in super().samples():
            tokens = np.full((len(sample["input_ids"]), self.max_tokens), self.pad_token_id, np.int64)
            for row, length in enumerate(sample["source_length"]):
                own = slice(length) if self.side == "right" else slice(self.max_tokens - length, None)
                tokens[row, own] = sample["input_ids"][row, :length]
            yield {"input_ids": tokens}

    def lengths(self, inputs: Mapping[str, Array]) -> Array:
        """Return the one length, for every row."""
        return np.full(len(inputs["input_ids"]), self.max_tokens, np.int32)


@dataclass(frozen=True)
class ImageInputs:
    """`pixel_values` [R, 3, height, width] float32: every position of an image is real."""

    spec: ImageSpec

    def example(self) -> Example:
        """Return two images."""
        example = Example()
        example.add("pixel_values", torch.zeros(2, 3, self.spec.height, self.spec.width), {0: "R"})
        return example

    def arguments(self, inputs: Tensors) -> dict[str, torch.Tensor]:
        """Hand on the pixels."""
        return dict(inputs)

    def samples(self) -> Iterator[dict[str, Array]]:
        """Yield images of noise: four, and one alone."""
        random = np.random.default_rng(0)
        for rows in (4, 1):
            pixels = random.standard_normal((rows, 3, self.spec.height, self.spec.width))
            yield {"pixel_values": pixels.astype(np.float32)}

    def lengths(self, inputs: Mapping[str, Array]) -> Array:
        """Return the number of positions, for every row."""
        return np.full(len(inputs["pixel_values"]), self.spec.positions, np.int32)


@dataclass(frozen=True)
class AudioInputs:
    """`input_features` [R, mels, frames] float32: every position is real, those of silence, too."""

    spec: AudioSpec

    def example(self) -> Example:
        """Return two windows."""
        example = Example()
        example.add("input_features", torch.zeros(2, self.spec.mel_bins, self.spec.frames), {0: "R"})
        return example

    def arguments(self, inputs: Tensors) -> dict[str, torch.Tensor]:
        """Hand on the features."""
        return dict(inputs)

    def samples(self) -> Iterator[dict[str, Array]]:
        """Yield windows of noise: four, and one alone."""
        random = np.random.default_rng(0)
        for rows in (4, 1):
            features = random.standard_normal((rows, self.spec.mel_bins, self.spec.frames))
            yield {"input_features": features.astype(np.float32)}

    def lengths(self, inputs: Mapping[str, Array]) -> Array:
        """Return the number of positions, for every row."""
        return np.full(len(inputs["input_features"]), self.spec.positions, np.int32)

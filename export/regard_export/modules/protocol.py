"""What a module must look like to be exported: R requests, N rows, S source positions, H heads.

`source` is `input_ids` [R, S] int64, padded on the right to `source_length` [R] int32, or
`pixel_values` [R, 3, height, width] float32 with a `source_length` of None: every image has as many
positions. Weights are what the module multiplied its values by: rows of 0 or more that sum to 1
over the positions that are real.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import torch


class Classified(NamedTuple):
    """`logits` [R, C], and the self-attention weights [R, H, S, S] of each layer.

    Where one query gathers all positions, it is a position of its own before them, and the others,
    which nothing mixes, attend to themselves.
    """

    logits: torch.Tensor
    weights: tuple[torch.Tensor, ...]


class Encoded(NamedTuple):
    """`memory` [R, S, W], which every step attends to, and the vectors [R, D] that the state begins with."""

    memory: torch.Tensor
    state: tuple[torch.Tensor, ...]


class Stepped(NamedTuple):
    """`logits` [N, V] of the next token, the new state [N, D], and the weights [N, H, S] over the source."""

    logits: torch.Tensor
    state: tuple[torch.Tensor, ...]
    weights: torch.Tensor


@runtime_checkable
class AttentiveClassifier(Protocol):
    """Tells the class of a source."""

    def classify(self, source: torch.Tensor, source_length: torch.Tensor | None) -> Classified:
        """Return the scores of every class, and where each layer looked."""


@runtime_checkable
class AttentiveGenerator(Protocol):
    """Writes tokens while it attends to a source, one step at a time."""

    def encode(self, source: torch.Tensor, source_length: torch.Tensor | None) -> Encoded:
        """Read the source."""

    def step(
        self,
        token_ids: torch.Tensor,
        state: tuple[torch.Tensor, ...],
        memory: torch.Tensor,
        source_length: torch.Tensor | None,
    ) -> Stepped:
        """Take the last tokens [N] and return the scores of the next; everything has N rows."""

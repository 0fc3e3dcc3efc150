"""Self-attention that doesn't see everything: near positions only, or the strongest only.

Local: Beltagy, Peters & Cohan 2020, "Longformer: The Long-Document Transformer"
(https://arxiv.org/abs/2004.05150), section 3.1 (sliding window). Sparse: Zhao et al. 2019, "Explicit
Sparse Transformer: Concentrated Attention Through Explicit Selection"
(https://arxiv.org/abs/1912.11637), section 2.2. Both are computed densely, with what is not seen
masked: it is their weights that are of interest here, not their speed.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import nn

from regard_export.classics.masking import is_real, masked_softmax
from regard_export.modules.protocol import Classified


class _Layer(nn.Module):
    """Self-attention and a feed-forward network, each after a norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.projections = nn.Linear(width, 3 * width)
        self.mix = nn.Linear(width, width)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def scores(self, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the scaled scores [R, H, S, S] and the values [R, H, S, D]."""
        rows, positions, width = states.shape
        split = self.projections(self.attention_norm(states)).view(rows, positions, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)
        return query @ key.transpose(2, 3) / math.sqrt(width // self.heads), value

    def forward(self, states: torch.Tensor, weights: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Mix the values by the weights, and go through the network."""
        states = states + self.mix((weights @ values).transpose(1, 2).flatten(2))
        mixed: torch.Tensor = states + self.feed_forward(states)
        return mixed


class _TransformerClassifier(nn.Module, ABC):
    """Classifies texts by the mean of their last states."""

    def __init__(
        self, vocabulary_size: int, classes: int, positions: int = 128, width: int = 64, heads: int = 4, layers: int = 2
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, width)
        self.position = nn.Embedding(positions, width)
        self.layers = nn.ModuleList(_Layer(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, classes)

    def classify(self, source: torch.Tensor, source_length: torch.Tensor | None) -> Classified:
        """Return the scores of `source` [R, S], and the weights of every layer."""
        assert source_length is not None
        real = is_real(source_length, source.shape[1])
        states = self.embedding(source) + self.position(torch.arange(source.shape[1]))
        maps = []
        for layer in self.layers:
            assert isinstance(layer, _Layer)
            scores, values = layer.scores(states)
            weights = masked_softmax(scores, self._seen(scores, real[:, None, None]))
            states = layer(states, weights, values)
            maps.append(weights)
        counted = real[:, :, None].to(states.dtype)
        mean = (self.norm(states) * counted).sum(1) / counted.sum(1)
        return Classified(self.output(mean), tuple(maps))

    @abstractmethod
    def _seen(self, scores: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """Return, bool [R, H or 1, S, S], which keys each query sees; `real` [R, 1, 1, S] are no padding."""


class LocalTransformer(_TransformerClassifier):
    """Every position sees `window` positions on either side of itself."""

    def __init__(self, vocabulary_size: int, classes: int, *, window: int = 4, **sizes: int) -> None:
        super().__init__(vocabulary_size, classes, **sizes)
        self.window = window

    def _seen(self, scores: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        place = torch.arange(scores.shape[-1])
        return real & ((place[:, None] - place).abs() <= self.window)


class SparseTransformer(_TransformerClassifier):
    """Every position sees the `strongest` positions, by their scores; all of those that tie for the last place."""

    def __init__(self, vocabulary_size: int, classes: int, *, strongest: int = 4, **sizes: int) -> None:
        super().__init__(vocabulary_size, classes, **sizes)
        self.strongest = strongest

    def _seen(self, scores: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        among_real = scores.masked_fill(~real, torch.finfo(scores.dtype).min)
        best = among_real.sort(-1, descending=True).values[..., : self.strongest]
        return real & (among_real >= best.amin(-1, keepdim=True))

"""A policy that attends to what it observes, after Mott et al.

"Towards Interpretable Reinforcement Learning Using Attention Augmented Agents", 2019, section 2,
without its recurrent core (https://arxiv.org/abs/1906.02500).
"""

from __future__ import annotations

import math

import torch
from torch import nn

from regard_export.modules.protocol import Classified
from regard_export.pooling import pooled


class AttentivePolicy(nn.Module):
    """Scores actions by what its queries, one a head, find in a grid of observations.

    Where a thing is matters to a policy, so every place has a learned key of its own beside what is
    seen there. The observation is an image of `grid` cells of `cell` by `cell` pixels.
    """

    def __init__(
        self, actions: int, grid: tuple[int, int] = (8, 8), cell: int = 4, width: int = 32, heads: int = 2
    ) -> None:
        super().__init__()
        self.heads = heads
        self.observe = nn.Conv2d(3, width, cell, stride=cell)
        self.place = nn.Parameter(torch.randn(grid[0] * grid[1], width) * 0.1)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.query = nn.Parameter(torch.randn(heads, width // heads))
        self.act = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, actions))

    def classify(self, source: torch.Tensor, source_length: torch.Tensor | None) -> Classified:
        """Return the scores of the actions for observations [R, 3, height, width], and where each query looked."""
        seen = self.observe(source).flatten(2).transpose(1, 2) + self.place
        rows, cells, width = seen.shape
        keys, values = (
            project(seen).view(rows, cells, self.heads, width // self.heads).transpose(1, 2)
            for project in (self.key, self.value)
        )
        scores = self.query[:, None] @ keys.transpose(2, 3) / math.sqrt(width // self.heads)
        weights = scores.softmax(-1)
        return Classified(self.act((weights @ values).flatten(1)), (pooled(weights),))

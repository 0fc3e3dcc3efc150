"""Spatial attention over a DenseNet's features.

Huang et al. 2017, "Densely Connected Convolutional Networks" (https://arxiv.org/abs/1608.06993),
pooled by a softmax over places as in Jetley et al. 2018, "Learn to Pay Attention", section 3
(https://arxiv.org/abs/1804.02391).
"""

from __future__ import annotations

import torch
from torch import nn

from regard_export.modules.protocol import Classified
from regard_export.pooling import pooled


class SpatialDenseNet(nn.Module):
    """Each block sees the features of all blocks before it; the class is read where the attention is."""

    def __init__(self, classes: int, growth: int = 12, blocks: int = 4) -> None:
        super().__init__()
        width = 2 * growth
        self.stem = nn.Conv2d(3, width, 3, stride=4, padding=1)
        self.blocks = nn.ModuleList()
        for _ in range(blocks):
            self.blocks.append(nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, growth, 3, padding=1)))
            width += growth
        self.energy = nn.Conv2d(width, 1, 1)
        self.output = nn.Linear(width, classes)

    def classify(self, source: torch.Tensor, source_length: torch.Tensor | None) -> Classified:
        """Return the scores of `source` [R, 3, height, width], and where the pool looked: a place for every 4 by 4."""
        features = self.stem(source)
        for block in self.blocks:
            features = torch.cat([features, block(features)], 1)
        weights = self.energy(features).flatten(2).softmax(-1)
        gathered = (features.flatten(2) @ weights.transpose(1, 2)).squeeze(-1)
        return Classified(self.output(gathered), (pooled(weights[:, None]),))

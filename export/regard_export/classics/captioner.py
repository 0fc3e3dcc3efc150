"""Soft and hard attention over an image, of Xu et al.

"Show, Attend and Tell: Neural Image Caption Generation with Visual Attention", 2015, section 4
(https://arxiv.org/abs/1502.03044).
"""

from __future__ import annotations

import torch
from torch import nn

from regard_export.modules.protocol import Encoded, Stepped


class ShowAttendTell(nn.Module):
    """An LSTM that looks at a grid of convolutional features: at all by their weights (soft), or at one (hard).

    Hard attention looks where its distribution is largest. In training it draws the place and passes
    the gradient of the distribution straight through, a simpler estimator than the paper's
    REINFORCE.
    """

    def __init__(
        self, vocabulary_size: int, grid: tuple[int, int] = (4, 4), width: int = 64, *, hard: bool = False
    ) -> None:
        super().__init__()
        self.hard = hard
        self.features = nn.Sequential(
            nn.Conv2d(3, width // 2, 3, stride=2, padding=1),
            nn.BatchNorm2d(width // 2),
            nn.ReLU(),
            nn.Conv2d(width // 2, width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(grid),
        )
        self.first = nn.Linear(width, 2 * width)
        self.embedding = nn.Embedding(vocabulary_size, width)
        self.key = nn.Linear(width, width)
        self.query = nn.Linear(width, width)
        self.energy = nn.Linear(width, 1)
        self.gate = nn.Linear(width, width)
        self.cell = nn.LSTMCell(2 * width, width)
        self.output = nn.Linear(width, vocabulary_size)

    def encode(self, source: torch.Tensor, source_length: torch.Tensor | None) -> Encoded:
        """Turn `source` [R, 3, height, width] into the features of a grid."""
        memory = self.features(source).flatten(2).transpose(1, 2)
        hidden, cell = torch.tanh(self.first(memory.mean(1))).chunk(2, -1)
        return Encoded(memory, (hidden, cell))

    def step(
        self,
        token_ids: torch.Tensor,
        state: tuple[torch.Tensor, ...],
        memory: torch.Tensor,
        source_length: torch.Tensor | None,
    ) -> Stepped:
        """Look, then move on."""
        hidden, cell = state
        energy = self.energy(torch.relu(self.key(memory) + self.query(hidden)[:, None])).squeeze(-1)
        weights = self._look(energy.softmax(-1))
        context = torch.sigmoid(self.gate(hidden)) * (weights[:, None] @ memory).squeeze(1)
        hidden, cell = self.cell(torch.cat([self.embedding(token_ids), context], -1), (hidden, cell))
        return Stepped(self.output(hidden), (hidden, cell), weights[:, None])

    def _look(self, weights: torch.Tensor) -> torch.Tensor:
        if not self.hard:
            return weights
        place = weights.multinomial(1)[:, 0] if self.training else weights.argmax(-1)
        chosen = nn.functional.one_hot(place, weights.shape[-1]).to(weights.dtype)
        return chosen + weights - weights.detach() if self.training else chosen

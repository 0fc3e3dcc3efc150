"""A recurrent encoder of padded texts."""

from __future__ import annotations

import torch
from torch import nn


class BidirectionalGRU(nn.Module):
    """Reads a text from both ends; padding on the right changes nothing (Schuster & Paliwal 1997)."""

    def __init__(self, vocabulary_size: int, embedding_size: int, hidden_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, embedding_size)
        self.forwards = nn.GRU(embedding_size, hidden_size, batch_first=True)
        self.backwards = nn.GRU(embedding_size, hidden_size, batch_first=True)

    def forward(self, input_ids: torch.Tensor, length: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a state for every position [R, S, 2 * hidden], and the one [R, hidden] that has read to the start."""
        embedded = self.embedding(input_ids)
        place = torch.arange(input_ids.shape[1])
        mirrored = torch.where(place < length[:, None], length[:, None] - 1 - place, place).to(torch.int64)
        rightwards, _ = self.forwards(embedded)
        leftwards, _ = self.backwards(_taken(embedded, mirrored))
        leftwards = _taken(leftwards, mirrored)
        return torch.cat([rightwards, leftwards], -1), leftwards[:, 0]


def _taken(states: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Return the states [R, S, W] at `places` [R, S]."""
    return states.gather(1, places[:, :, None].expand(-1, -1, states.shape[2]))

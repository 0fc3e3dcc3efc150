"""Additive attention, of Bahdanau, Cho & Bengio.

"Neural Machine Translation by Jointly Learning to Align and Translate", 2015, sections 3.1 and A.1.2
(https://arxiv.org/abs/1409.0473).
"""

from __future__ import annotations

import torch
from torch import nn

from regard_export.classics.masking import is_real, masked_softmax
from regard_export.classics.recurrent import BidirectionalGRU
from regard_export.modules.protocol import Encoded, Stepped


class AdditiveTranslator(nn.Module):
    """A GRU that scores every source position by `v * tanh(W state + U position)`."""

    def __init__(self, vocabulary_size: int, embedding_size: int = 64, hidden_size: int = 96) -> None:
        super().__init__()
        self.encoder = BidirectionalGRU(vocabulary_size, embedding_size, hidden_size)
        self.first = nn.Linear(hidden_size, hidden_size)
        self.embedding = nn.Embedding(vocabulary_size, embedding_size)
        self.query = nn.Linear(hidden_size, hidden_size, bias=False)
        self.key = nn.Linear(2 * hidden_size, hidden_size, bias=False)
        self.energy = nn.Linear(hidden_size, 1, bias=False)
        self.cell = nn.GRUCell(embedding_size + 2 * hidden_size, hidden_size)
        self.output = nn.Linear(embedding_size + 3 * hidden_size, vocabulary_size)

    def encode(self, source: torch.Tensor, source_length: torch.Tensor | None) -> Encoded:
        """Read `source` [R, S] from both ends."""
        assert source_length is not None
        memory, whole = self.encoder(source, source_length)
        return Encoded(memory, (torch.tanh(self.first(whole)),))

    def step(
        self,
        token_ids: torch.Tensor,
        state: tuple[torch.Tensor, ...],
        memory: torch.Tensor,
        source_length: torch.Tensor | None,
    ) -> Stepped:
        """Attend with the former state, then move on."""
        assert source_length is not None
        (hidden,) = state
        energy = self.energy(torch.tanh(self.query(hidden)[:, None] + self.key(memory))).squeeze(-1)
        weights = masked_softmax(energy, is_real(source_length, memory.shape[1]))
        context = (weights[:, None] @ memory).squeeze(1)
        token = self.embedding(token_ids)
        hidden = self.cell(torch.cat([token, context], -1), hidden)
        return Stepped(self.output(torch.cat([token, hidden, context], -1)), (hidden,), weights[:, None])

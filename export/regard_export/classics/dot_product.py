"""Multiplicative attention, of Luong, Pham & Manning.

"Effective Approaches to Attention-based Neural Machine Translation", 2015, section 3.1 (global
attention, the score "general"; https://arxiv.org/abs/1508.04025).
"""

from __future__ import annotations

import torch
from torch import nn

from regard_export.classics.masking import is_real, masked_softmax
from regard_export.classics.recurrent import BidirectionalGRU
from regard_export.modules.protocol import Encoded, Stepped


class DotProductTranslator(nn.Module):
    """An LSTM that scores every source position by `state * W * position`, after it has moved on."""

    def __init__(self, vocabulary_size: int, embedding_size: int = 64, hidden_size: int = 96) -> None:
        super().__init__()
        self.encoder = BidirectionalGRU(vocabulary_size, embedding_size, hidden_size)
        self.first = nn.Linear(hidden_size, 2 * hidden_size)
        self.embedding = nn.Embedding(vocabulary_size, embedding_size)
        self.cell = nn.LSTMCell(embedding_size + hidden_size, hidden_size)
        self.score = nn.Linear(hidden_size, 2 * hidden_size, bias=False)
        self.attentional = nn.Linear(3 * hidden_size, hidden_size, bias=False)
        self.output = nn.Linear(hidden_size, vocabulary_size)

    def encode(self, source: torch.Tensor, source_length: torch.Tensor | None) -> Encoded:
        """Read `source` [R, S] from both ends; the state is the LSTM's two and the attentional vector."""
        assert source_length is not None
        memory, whole = self.encoder(source, source_length)
        hidden, cell = torch.tanh(self.first(whole)).chunk(2, -1)
        return Encoded(memory, (hidden, cell, torch.zeros_like(hidden)))

    def step(
        self,
        token_ids: torch.Tensor,
        state: tuple[torch.Tensor, ...],
        memory: torch.Tensor,
        source_length: torch.Tensor | None,
    ) -> Stepped:
        """Move on, fed with the former attentional vector (section 3.3), then attend."""
        assert source_length is not None
        hidden, cell, fed = state
        hidden, cell = self.cell(torch.cat([self.embedding(token_ids), fed], -1), (hidden, cell))
        scores = (memory @ self.score(hidden)[:, :, None]).squeeze(-1)
        weights = masked_softmax(scores, is_real(source_length, memory.shape[1]))
        context = (weights[:, None] @ memory).squeeze(1)
        attentional = torch.tanh(self.attentional(torch.cat([context, hidden], -1)))
        return Stepped(self.output(attentional), (hidden, cell, attentional), weights[:, None])

"""Softmax over the positions that are real."""

from __future__ import annotations

import torch


def is_real(length: torch.Tensor, positions: int) -> torch.Tensor:
    """Return, bool [R, S], which positions lie before their row's `length` [R]."""
    return torch.arange(positions) < length[:, None]


def masked_softmax(scores: torch.Tensor, allowed: torch.Tensor | None) -> torch.Tensor:
    """Return weights that sum to 1 over the last dimension, and are 0 where it isn't `allowed`."""
    if allowed is not None:
        scores = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)
    return scores.softmax(-1)

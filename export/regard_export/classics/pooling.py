"""One query that gathers all places, as the self-attention of `regard_export.modules.protocol`."""

from __future__ import annotations

import torch


def pooled(weights: torch.Tensor) -> torch.Tensor:
    """Return weights [R, H, 1 + S, 1 + S]: the first position has those of the query, `weights` [R, H, 1, S].

    The others, which nothing mixes, attend to themselves.
    """
    rows, heads, _, positions = weights.shape
    gathering = torch.cat([torch.zeros(rows, heads, 1, 1), weights], -1)
    staying = torch.cat([torch.zeros(positions, 1), torch.eye(positions)], -1).expand(rows, heads, -1, -1)
    return torch.cat([gathering, staying], 2)

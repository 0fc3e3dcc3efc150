"""One query that gathers all places, as a position before theirs: maps of it are as those of a `[CLS]`.

A query that is learned, as that of SigLIP's images (Lee et al. 2019, Set transformer, section 3.2), attends to all
positions in one last layer and to nothing before, while nobody attends to it. So all others attend to themselves in
that layer, and it does in the layers before.
"""

from __future__ import annotations

import torch

POOLING_POSITION = "[POOL]"
"""The name of the position that stands for the query."""


def pooled(weights: torch.Tensor) -> torch.Tensor:
    """Return weights [R, H, 1 + S, 1 + S]: the first position has those of the query, `weights` [R, H, 1, S].

    The others, which nothing mixes, attend to themselves.
    """
    rows, heads, _, positions = weights.shape
    gathering = torch.cat([torch.zeros(rows, heads, 1, 1), weights], -1)
    staying = torch.cat([torch.zeros(positions, 1), torch.eye(positions)], -1).expand(rows, heads, -1, -1)
    return torch.cat([gathering, staying], 2)


def beside_pooling(weights: torch.Tensor) -> torch.Tensor:
    """Return weights [R, H, 1 + S, 1 + S] of `weights` [R, H, S, S]: the first position attends to itself."""
    rows, heads, positions, _ = weights.shape
    waiting = torch.cat([torch.ones(1, 1), torch.zeros(1, positions)], -1).expand(rows, heads, -1, -1)
    mixing = torch.cat([torch.zeros(rows, heads, positions, 1), weights], -1)
    return torch.cat([waiting, mixing], 2)

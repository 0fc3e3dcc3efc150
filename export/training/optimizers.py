"""The optimizers and the learning-rate schedule that the recipes share."""

from __future__ import annotations

import math

import torch

from muon import Muon


def build_optimizers(
    model: torch.nn.Module, matrix_learning_rate: float, learning_rate: float
) -> list[torch.optim.Optimizer]:
    """Return Muon for the weight matrices, AdamW for embeddings, norms, biases and convolutions."""
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    matrices, others = [], []
    for parameter in model.parameters():
        (matrices if parameter.dim() == 2 and id(parameter) not in embeddings else others).append(parameter)
    optimizers = [
        Muon(matrices, lr=matrix_learning_rate),
        torch.optim.AdamW(others, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True),
    ]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


def schedule(step: int, steps: int, decay_share: float) -> float:
    """Return the share of the peak learning rate at `step`.

    It warms up for 300 steps, stays, and falls as 1 - sqrt over the last `decay_share` of `steps`
    (Hägele et al. 2024, arXiv:2405.18392).
    """
    decay_start = steps * (1 - decay_share)
    if step > decay_start:
        return 1 - math.sqrt(min(1.0, (step - decay_start) / (steps - decay_start)))
    return min(1.0, (step + 1) / 300)


def set_learning_rate(optimizers: list[torch.optim.Optimizer], share: float) -> None:
    """Set every learning rate to a share of its peak."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * share

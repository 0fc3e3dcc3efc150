"""Muon: momentum orthogonalised by Newton-Schulz iterations, for the matrices of a small model.

Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon); the update's scale follows Liu et
al. 2025 (arXiv:2502.16982, section 2.2), so that AdamW's learning rates carry over.
`torch.optim.Muon` iterates in bfloat16, which is slow on processors without bfloat16 units, and
one matrix at a time; here matrices of one shape are iterated together in float32.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch


class Muon(torch.optim.Optimizer):
    """Optimise two-dimensional parameters; embeddings, norms and biases belong to AdamW."""

    def __init__(
        self, parameters: Iterable[torch.Tensor], *, lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Apply one update from the gradients."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[torch.Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[parameter.shape].append(parameter)
            for shape, parameters in by_shape.items():
                directions = torch.stack([self._nesterov(p, group["momentum"]) for p in parameters])
                scale = 0.2 * max(shape) ** 0.5
                for parameter, update in zip(parameters, orthogonalise(directions), strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(update, alpha=-group["lr"] * scale)

    def _nesterov(self, parameter: torch.Tensor, momentum: float) -> torch.Tensor:
        gradient = parameter.grad
        assert gradient is not None
        average = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
        average.lerp_(gradient, 1 - momentum)
        return gradient.lerp(average, momentum)


def orthogonalise(matrices: torch.Tensor, iterations: int = 5) -> torch.Tensor:
    """Return the nearest semi-orthogonal matrices of `matrices` [count, rows, columns], roughly.

    Quintic Newton-Schulz iteration with the coefficients of Jordan et al.: singular values come
    out between 0.7 and 1.2.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    transposed = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if transposed else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if transposed else x

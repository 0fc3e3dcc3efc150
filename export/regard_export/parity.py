"""How far the graphs of a package are from the eager model: what `parity.json` holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from regard.manifest import Provider
from regard_export.errors import ParityError
from regard_export.stepping import Array

TIE_MARGIN = 1e-4
INTERVENED = "intervened."
"""What the differences of graphs that take interventions are called by, before the names of the others."""
WEIGHTED = ".value_norm"
"""What the names of weights times norms end in. In units of the largest norm, they may be as far off as the weights."""
ROUNDINGS = 2.0
"""So many times as far as the eager model in fp16 may a graph be off: it rounds the same sums in another order."""


@dataclass
class Parity:
    """The largest differences seen, by what was compared, and the agreement of greedy tokens.

    `tolerance` is the largest difference that a package may have; None if differences are only
    reported. Tokens that the eager model sees no further apart are a tie.
    """

    tolerance: float | None
    unproven: tuple[Provider, ...]
    """The providers that the graphs are meant for and that none was run on."""
    eager_differences: Mapping[str, float] = field(default_factory=dict)
    """How far the eager model is from itself in fp32, where it runs in the graphs' precision."""
    differences: dict[str, float] = field(default_factory=dict)
    tokens_compared: int = 0
    tokens_different: int = 0

    def note(self, name: str, ours: Array, reference: torch.Tensor) -> None:
        """Remember the largest absolute difference between two tensors of one shape; what is no number is endless."""
        expected = reference.detach().numpy()
        if ours.shape != expected.shape:
            raise ParityError(f"{name}: the graph gives {ours.shape}, the eager model {expected.shape}")
        with np.errstate(invalid="ignore"):
            apart = np.where(ours == expected, 0.0, np.abs(ours - expected))
        worst = np.nan_to_num(apart, nan=np.inf, posinf=np.inf).max(initial=0.0)
        self.differences[name] = max(self.differences.get(name, 0.0), float(worst))

    def include_intervened(self, other: Parity) -> None:
        """Take over what was seen of the graphs that take interventions."""
        self.differences |= {f"{INTERVENED}{name}": worst for name, worst in other.differences.items()}
        self.tokens_compared += other.tokens_compared
        self.tokens_different += other.tokens_different

    def tied(self, eager: Array, ours: int, theirs: int) -> bool:
        """Tell whether either of two tokens may come first in the eager model's logits [V]."""
        margin = self._allowed("logits") if self.tolerance is not None else TIE_MARGIN
        return bool(abs(float(eager[ours]) - float(eager[theirs])) <= margin)

    def require(self) -> None:
        """Raise `ParityError` if anything differs by more than the tolerance, or a token does.

        Without a tolerance, it must still be numbers that differ.
        """
        for name, worst in self.differences.items():
            if not np.isfinite(worst):
                raise ParityError(f"{name} isn't finite where the eager model's is, or the reverse; no package")
        if self.tolerance is None:
            return
        over = {name: worst for name, worst in self.differences.items() if not worst <= self._allowed(name)}
        if over:
            name, worst = max(over.items(), key=lambda item: item[1])
            limit = self._allowed(name)
            raise ParityError(f"{name} differs from the eager model by {worst:.1e}, over {limit:.0e}; no package")
        if self.tokens_different:
            raise ParityError(
                f"{self.tokens_different} of {self.tokens_compared} greedy tokens differ from generate(); no package"
            )

    def _allowed(self, name: str) -> float:
        eager = self.eager_differences.get(name.removeprefix(INTERVENED).removesuffix(WEIGHTED), 0.0)
        return max(self.tolerance or 0.0, ROUNDINGS * eager)

    def report(self) -> dict[str, object]:
        """Return what `parity.json` holds."""
        return {
            "reference": "Transformers, eager attention, fp32",
            "compared_on": ["cpu"],
            "not_compared_on": list(self.unproven),
            "tolerance": self.tolerance,
            "max_abs_difference": dict(sorted(self.differences.items())),
            "eager_max_abs_difference": dict(sorted(self.eager_differences.items())),
            "greedy_tokens_compared": self.tokens_compared,
            "greedy_tokens_different": self.tokens_different,
        }

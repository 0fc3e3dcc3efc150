"""How far `generate()` is from itself, where float32 rounds what it computes in another way otherwise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .family import Ask, Family
from .reference import Expected

MULTIPLIED = "beams, never, short"
"""The option set whose penalty multiplies the rounding of a score."""


def own_differences(family: Family, requests: int, random: np.random.Generator) -> dict[str, list[float]]:
    """Return how far scores of `generate()` are from its own where it computes the same in another way.

    The eager model with its cache is compared with itself without, and with SDPA if it has that, in searches of
    `MULTIPLIED`; those that end with other tokens are left out.
    """
    eager, uncached = family.reference, {"use_cache": False}
    ways: dict[str, Callable[[Ask], Expected]] = {
        "without its cache": lambda ask: eager.search(ask.arguments, {**ask.given, **uncached})
    }
    if (fused := eager.with_sdpa()) is not None:
        ways["with SDPA"] = lambda ask: fused.search(ask.arguments, ask.given)
    found: dict[str, list[float]] = {way: [] for way in ways}
    for ask in (family.ask(MULTIPLIED, random) for _ in range(requests)):
        expected = eager.search(ask.arguments, ask.given)
        for way, search in ways.items():
            other = search(ask)
            if other.sequences == expected.sequences:
                assert other.scores is not None and expected.scores is not None
                found[way].append(float(np.abs(np.subtract(other.scores, expected.scores)).max()))
    return found

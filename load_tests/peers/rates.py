"""Tokens per second of contestants that take turns, and the ratios between them within each round."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import TypeVar

from load_tests.peers.contestants import Contestant
from load_tests.peers.sources import Source

Rates = dict[str, list[float]]
"""Tokens per second by contestant, one for each round."""
T = TypeVar("T")


def tokens_per_second(contestant: Contestant, sources: Sequence[Source], concurrency: int, beams: int = 1) -> float:
    """Return the rate of one run; raise `ValueError` if a source gave another number of tokens than it asks for."""
    started = time.perf_counter()
    counts = contestant.translate(sources, concurrency, beams)
    elapsed_s = time.perf_counter() - started
    asked = [source.target_tokens for source in sources]
    if counts != asked:
        told, wanted = next(pair for pair in zip(counts, asked, strict=True) if pair[0] != pair[1])
        raise ValueError(f"{contestant.name} gave {told} tokens for a source that asks for {wanted}")
    return sum(counts) / elapsed_s


def rotated(contestants: Sequence[T], number: int) -> list[T]:
    """Return the contestants in the order of round `number`, so that each comes first in turn."""
    first = number % len(contestants)
    return [*contestants[first:], *contestants[:first]]


def best(rates: Mapping[str, Sequence[float]], kind: str) -> Sequence[float]:
    """Return the rates of the fastest contestant of `kind`, by its median."""
    return max((measured for name, measured in rates.items() if name.split()[0] == kind), key=statistics.median)


def ratios(these: Sequence[float], those: Sequence[float]) -> list[float]:
    """Return the ratios within the rounds that both took part in."""
    return [one / other for one, other in zip(these, those, strict=False)]

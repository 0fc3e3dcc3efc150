"""Batches for Transformers: rows of like lengths together, so that little is padded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def batches(rows: Sequence[list[int]], size: int) -> Iterator[list[int]]:
    """Yield the indices of token `rows` in batches of `size`, the longest rows first."""
    order = sorted(range(len(rows)), key=lambda index: -len(rows[index]))
    yield from (order[start : start + size] for start in range(0, len(order), size))

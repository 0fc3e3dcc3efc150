"""What pictures of load tests are drawn with: strokes and words of SVG, and scales with round ends."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from xml.sax.saxutils import escape

INK, GREY, PALE = "#1d2530", "#66707c", "#e4e7eb"
STYLE = f"""
text {{ font: 13px system-ui, sans-serif; fill: {INK}; }}
.title {{ font-size: 21px; font-weight: 600; }}
.head {{ font-size: 14px; font-weight: 600; }}
.grey {{ fill: {GREY}; }}
.small {{ font-size: 11.5px; font-variant-numeric: tabular-nums; }}
.end {{ text-anchor: end; }}
.middle {{ text-anchor: middle; }}
"""


class Logarithm:
    """A scale that spans whole steps of 1, 2, 5, 10 around two values."""

    def __init__(self, low: float, high: float) -> None:
        steps = [digit * 10.0**power for power in range(-3, 7) for digit in (1, 2, 5)]
        first = max(index for index, step in enumerate(steps) if step <= max(low, steps[0]))
        last = min(index for index, step in enumerate(steps) if step >= min(high, steps[-1]))
        self.ticks = steps[first : max(last, first + 1) + 1]

    def at(self, value: float) -> float:
        """Return the place of `value`, from 0 to 1."""
        low, high = self.ticks[0], self.ticks[-1]
        return min(1.0, max(0.0, math.log(value / low) / math.log(high / low)))


def round_up(count: int) -> int:
    """Return the next number that halves well: 2, 4, 6, 8, 10, 20, 40."""
    steps: Iterator[int] = (digit * 10**power for power in itertools.count() for digit in (2, 4, 6, 8, 10))
    return next(step for step in steps if step >= count)


def text(x: float, y: float, words: str, classes: str = "") -> str:
    """Write words on the baseline `y`."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{classes}">{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 1) -> str:
    """Draw a straight line."""
    return f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="{colour}" stroke-width="{width}"/>'

"""Servers as curves over the load that they are offered: what they answer, and how long callers wait."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from load_tests.drawing import INK, PALE, STYLE, Logarithm, line, round_up, text

WIDTH, HEIGHT = 1080, 452
MARGIN, AXIS, GUTTER = 28, 44, 64
TOP, BOTTOM = 140, 396
COLOURS = ("#2f5fa8", "#c2571a", "#23856b")


@dataclass(frozen=True, slots=True)
class Point:
    """What a server did at one offered load."""

    offered_per_s: float
    answered_per_s: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Curve:
    """One server at all loads, in their order."""

    name: str
    points: Sequence[Point]


def draw(curves: Sequence[Curve], conditions: str) -> str:
    """Return the picture as SVG, with `conditions`, a sentence, under its title."""
    points = [point for curve in curves for point in curve.points]
    most = round_up(int(max(point.offered_per_s for point in points)) + 1)
    highest = round_up(int(max(point.answered_per_s for point in points)) + 1)
    waits = Logarithm(min(point.p50_ms for point in points), max(point.p99_ms for point in points))
    width = (WIDTH - 2 * MARGIN - 2 * AXIS - GUTTER) / 2
    lefts = (MARGIN + AXIS, MARGIN + 2 * AXIS + width + GUTTER)
    rates = {f"{highest * share:g}": share for share in (0, 0.5, 1)}
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}">',
        f"<style>{STYLE}</style>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        text(MARGIN, 42, "What servers answer, and how long callers wait", "title"),
        text(MARGIN, 64, conditions, "grey small"),
        *_legend(curves),
        *_panel("answers per second", lefts[0], width, most, rates),
        *_panel(
            "milliseconds from when a request was due",
            lefts[1],
            width,
            most,
            {f"{t:,g}": waits.at(t) for t in waits.ticks},
        ),
    ]
    for curve, colour in zip(curves, COLOURS, strict=False):

        def drawn(
            left: float, at: Callable[[Point], float], dashes: str = "", of: Curve = curve, in_: str = colour
        ) -> str:
            places = [(left + width * point.offered_per_s / most, _y(at(point))) for point in of.points]
            return _path(places, in_, dashes)

        parts += [
            drawn(lefts[0], lambda point: point.answered_per_s / highest),
            drawn(lefts[1], lambda point: waits.at(point.p50_ms), "5 4"),
            drawn(lefts[1], lambda point: waits.at(point.p99_ms)),
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(title: str, left: float, width: float, most: float, ticks: dict[str, float]) -> Iterator[str]:
    """Draw the axes; `ticks` are the words beside places from 0 to 1."""
    yield text(left, TOP - 16, title, "head")
    for words, share in ticks.items():
        yield line(left, _y(share), left + width, _y(share), PALE)
        yield text(left - 10, _y(share) + 4, words, "grey small end")
    for share in (0, 0.5, 1):
        yield text(left + width * share, BOTTOM + 20, f"{most * share:g}", "grey small middle")
    yield text(left + width / 2, BOTTOM + 40, "requests offered per second", "grey small middle")


def _legend(curves: Sequence[Curve]) -> Iterator[str]:
    x = float(MARGIN)
    for curve, colour in zip(curves, COLOURS, strict=False):
        yield line(x, 90, x + 24, 90, colour, 2.5)
        yield text(x + 32, 94, curve.name)
        x += 140
    for words, dashes in (("p99", ""), ("median", "5 4")):
        yield _path([(x, 90), (x + 24, 90)], INK, dashes, dots=False)
        yield text(x + 32, 94, words, "grey")
        x += 100


def _path(places: Sequence[tuple[float, float]], colour: str, dashes: str, *, dots: bool = True) -> str:
    steps = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    path = f'<path d="M{steps}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dashes}"/>'
    marks = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in places] if dots else []
    return "\n".join([path, *marks])


def _y(share: float) -> float:
    return BOTTOM - (BOTTOM - TOP) * share

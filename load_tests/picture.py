"""A load test as a picture: how long answers took, kind by kind, and how many came each second."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence

from load_tests.drawing import INK, PALE, STYLE, Logarithm, line, round_up, text
from load_tests.kinds import kinds
from load_tests.measures import Measures, Phase, Row, Sample

WIDTH = 1080
MARGIN = 28
NAMES = 168
"""Width of the column that names the kinds."""
GUTTER = 52
ROW = 44
TOP = 118
TIMELINE = 170
COLOURS = dict(
    zip(map(str, kinds(0.5)), ("#2f5fa8", "#8fb0dd", "#23856b", "#86c7b2", "#c2571a", "#edac82"), strict=True)
)
SERIES = COLOURS | {"failed": "#c1121f"}


def draw(measures: Measures, conditions: str) -> str:
    """Return the picture as SVG, with `conditions`, a sentence, under its title."""
    below = TOP + ROW * len(measures.expected) + 96
    height = below + TIMELINE + 76
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}">',
        f"<style>{STYLE}</style>",
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        text(MARGIN, 42, "How long answers take, and how many come", "title"),
        text(MARGIN, 64, conditions, "grey"),
        *_latencies(measures),
        *_timeline(measures, below),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _latencies(measures: Measures) -> Iterator[str]:
    """Draw one panel for each loop, side by side on one logarithmic scale."""
    answered = [one.latency_ms for one in measures.samples if one.failure is None] or [1.0]
    scale = Logarithm(min(answered), max(answered))
    width = (WIDTH - 2 * MARGIN - NAMES - GUTTER * (len(measures.phases) - 1)) / max(1, len(measures.phases))
    for index, kind in enumerate(measures.expected):
        yield text(MARGIN, TOP + ROW * (index + 0.5) + 4, kind)
    for number, phase in enumerate(measures.phases):
        left = MARGIN + NAMES + number * (width + GUTTER)
        rows = [row for row in measures.rows if row.loop == phase.loop]
        yield text(left, TOP - 16, f"{phase.loop} loop", "head")
        yield text(left + width, TOP - 16, phase.about, "grey small end")
        yield from _axis(scale, left, width, TOP, TOP + ROW * len(rows))
        for index, row in enumerate(rows):
            yield from _strip(measures, row, scale, left, width, TOP + ROW * (index + 0.5))
    yield text(MARGIN, TOP + ROW * len(measures.expected) + 20, "milliseconds", "grey small")
    legend = "Each dot is an answer. Marked: the median ●, the 95th percentile | and the 99th, where the line ends."
    yield text(MARGIN + NAMES, TOP + ROW * len(measures.expected) + 44, legend, "grey small")


def _axis(scale: Logarithm, left: float, width: float, top: float, bottom: float) -> Iterator[str]:
    for tick in scale.ticks:
        x = left + width * scale.at(tick)
        yield line(x, top, x, bottom, PALE)
        yield text(x, bottom + 20, f"{tick:,g}", "grey small middle")


def _strip(measures: Measures, row: Row, scale: Logarithm, left: float, width: float, y: float) -> Iterator[str]:
    """Draw every answer of a row as a faint dot, and its quantiles over them."""
    colour, scatter = COLOURS[row.kind], random.Random(row.kind)
    for one in measures.of(row.loop, row.kind):
        if one.failure is None:
            x, near = left + width * scale.at(one.latency_ms), y + scatter.uniform(-11, 11)
            yield f'<circle cx="{x:.1f}" cy="{near:.1f}" r="1.8" fill="{colour}" fill-opacity=".55"/>'
    if row.latency_ms is None:
        yield text(left + width / 2, y + 4, "no answer", "grey middle")
        return
    median, late, latest = (left + width * scale.at(latency_ms) for latency_ms in row.latency_ms)
    yield line(median, y, latest, y, INK, 1.5)
    yield line(late, y - 7, late, y + 7, INK, 1.5)
    yield f'<circle cx="{median:.1f}" cy="{y:.1f}" r="5" fill="{INK}" stroke="#fff" stroke-width="1.5"/>'


def _timeline(measures: Measures, top: float) -> Iterator[str]:
    """Draw the answers of every second as a column, kind upon kind, and what failed on top."""
    begin_s = min((phase.begin_s for phase in measures.phases), default=0.0)
    came = Counter((int(max(0.0, one.ended_s - begin_s)), _series(one)) for one in measures.samples)
    seconds = 1 + max((second for second, _ in came), default=0)
    highest = round_up(max(sum(came[second, series] for series in SERIES) for second in range(seconds)))
    left, width, base = MARGIN + NAMES, WIDTH - 2 * MARGIN - NAMES, top + TIMELINE
    column = width / seconds
    yield text(left, top - 14, "answers per second", "head")
    for share in (0.0, 0.5, 1.0):
        yield line(left, base - TIMELINE * share, left + width, base - TIMELINE * share, PALE)
        yield text(left - 10, base - TIMELINE * share + 4, f"{highest * share:g}", "grey small end")
    for second in range(seconds):
        yield from _column(came, second, left + column * second, column - 2, base, TIMELINE / highest)
    for phase in measures.phases:
        yield from _span(phase, left - column * begin_s, column, base)
    occurring = {*measures.expected, *(series for _, series in came)}
    yield from _legend([series for series in SERIES if series in occurring], top)


def _column(
    came: Counter[tuple[int, str]], second: int, x: float, width: float, base: float, each: float
) -> Iterator[str]:
    y = base
    for series in SERIES:
        height = came[second, series] * each
        y -= height
        if height:
            yield f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{SERIES[series]}"/>'


def _span(phase: Phase, left: float, column: float, base: float) -> Iterator[str]:
    """Draw when a loop ran, under the columns."""
    begin, end = left + column * phase.begin_s, left + column * phase.end_s
    yield line(begin, base + 8, end, base + 8, INK, 2)
    yield text((begin + end) / 2, base + 26, f"{phase.loop} loop, {phase.seconds:.0f} s", "grey small middle")


def _legend(shown: Sequence[str], top: float) -> Iterator[str]:
    for index, series in enumerate(shown):
        y = top + 10 + 22 * index
        yield f'<rect x="{MARGIN}" y="{y - 9}" width="10" height="10" fill="{SERIES[series]}"/>'
        yield text(MARGIN + 16, y, series, "grey small")


def _series(sample: Sample) -> str:
    return sample.kind if sample.failure is None else "failed"

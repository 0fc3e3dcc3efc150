"""What a request could ask for instead, where the attention that it asks for is more than it may have."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from regard.attention.axes import Axis, AxisName
from regard.attention.encoding import Encoding
from regard.attention.maps import size_of
from regard.attention.selection import Granularity, Reduction, Selection

Axes = Callable[[Granularity], Mapping[AxisName, Axis]]
"""What labels the maps by tokens, by words or by patches."""


@dataclass(frozen=True, slots=True)
class Alternative:
    """Options that would fit, such as `reduction mean`, and the bytes that they come to."""

    options: str
    size: int


def alternatives(selection: Selection, axes: Axes, max_bytes: int) -> list[Alternative]:
    """Return each option that makes the maps of `selection` fit by itself, or else several together, or nothing."""

    def size(changed: Selection) -> int:
        return size_of(changed, axes(changed.granularity))

    alone = [Alternative(options, size(changed)) for options, changed in _changes(selection, size, max_bytes)]
    fitting = [one for one in alone if one.size <= max_bytes]
    if fitting:
        return fitting
    given: list[str] = []
    while changes := [one for one in _changes(selection, size, max_bytes) if size(one[1]) < size(selection)]:
        options, selection = changes[0]
        given.append(options)
        if size(selection) <= max_bytes:
            return [Alternative(" with ".join(given), size(selection))]
    return []


def _changes(selection: Selection, size: Callable[[Selection], int], max_bytes: int) -> Iterator[tuple[str, Selection]]:
    """Yield what could be asked for with one option changed; what loses least comes first."""
    if selection.encoding is not Encoding.UINT8:
        yield "encoding uint8", replace(selection, encoding=Encoding.UINT8)
    if selection.encoding is Encoding.FLOAT32:
        yield "encoding float16", replace(selection, encoding=Encoding.FLOAT16)
    if selection.reduction is Reduction.NONE:
        yield "reduction mean", replace(selection, reduction=Reduction.MEAN)
    if selection.granularity is Granularity.TOKEN:
        yield "granularity word", replace(selection, granularity=Granularity.WORD)
    deepest = max(tap.layer for tap in selection.maps)
    last = tuple(tap for tap in selection.maps if tap.layer == deepest)
    if len(last) < len(selection.maps):
        yield f"layers [{deepest}]", replace(selection, maps=last)
    fits = bisect_right(range(1, 1 << 16), max_bytes, key=lambda count: size(replace(selection, top_k=count)))
    if fits:
        yield f"top_k {fits}", replace(selection, top_k=fits)

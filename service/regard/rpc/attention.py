"""The attention of one input: within its budget, labelled, and as a message."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from regard.attention.axes import AxisName, Origin, Passage, label
from regard.attention.maps import build, size_of
from regard.attention.selection import AttentionStack, Selection
from regard.engine.request import FloatArray
from regard.errors import InvalidInputError
from regard.manifest import Package
from regard.rpc import convert
from regard.text.segment import Segment
from regard.v1 import attention_pb2

_UNITS = ("bytes", "KiB", "MiB")


@dataclass(frozen=True, slots=True)
class AttentionOrder:
    """What attention each input of a request gets, and how many bytes of weights it may come to."""

    selection: Selection
    max_bytes: int

    def of_stack(self, stack: AttentionStack) -> AttentionOrder | None:
        """Return what is asked for of one stack; None if nothing is."""
        selection = self.selection.of_stack(stack)
        return replace(self, selection=selection) if selection else None

    def check(self, source: Origin, field: str) -> None:
        """Raise `InvalidInputError` if even an output of one token would be over the budget."""
        axes = label(self.selection, source)
        least = dict.fromkeys(AxisName, 1) | {name: len(axis.segments) for name, axis in axes.items()}
        self._check_size(least, field, "at least ")

    def fill(
        self,
        package: Package,
        taps: Mapping[str, FloatArray],
        source: Origin,
        field: str,
        *,
        target: Passage | None = None,
        start: Segment | None = None,
    ) -> attention_pb2.Attention:
        """Return the attention of one input from its `taps`; `target` is the output that `start` led to.

        Raises `InvalidInputError` if it is over the budget.
        """
        axes = label(self.selection, source, target, start)
        self._check_size({name: len(axis.segments) for name, axis in axes.items()}, field)
        maps = build(self.selection, taps, axes)
        return convert.attention(package, self.selection.granularity, axes.values(), maps)

    def _check_size(self, lengths: Mapping[AxisName, int], field: str, bound: str = "") -> None:
        size = size_of(self.selection, lengths)
        if size > self.max_bytes:
            raise InvalidInputError(
                f"{field}: its attention comes to {bound}{_bytes(size)}; the most for one input of this request is "
                f"{_bytes(self.max_bytes)}; ask for fewer layers or heads, for a reduction or for words, shorten "
                "the input, or send fewer inputs at once",
                field=field,
            )


def bytes_of(attention: attention_pb2.Attention) -> int:
    """Return the bytes of weights in a message."""
    return sum(len(one.weights) for one in attention.maps)


def _bytes(count: int) -> str:
    size, unit = float(count), 0
    while size >= 1024 and unit < len(_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.1f} {_UNITS[unit]}" if unit else f"{count} bytes"

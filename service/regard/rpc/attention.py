"""The attention of one input: within its budget, labelled, and as a message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from regard.attention.axes import Axis, AxisName, Origin, Passage, axes_of, label
from regard.attention.budget import Alternative, alternatives
from regard.attention.maps import build, size_of, size_read
from regard.attention.selection import AttentionStack, Granularity, Selection
from regard.engine.request import FloatArray
from regard.errors import InvalidInputError
from regard.manifest import Package
from regard.rpc import convert
from regard.rpc.wire import Weights, bytes_behind
from regard.text.segment import Segment
from regard.v1 import attention_pb2

_UNITS = ("bytes", "KiB", "MiB")


@dataclass(frozen=True, slots=True)
class AttentionOrder:
    """What attention each input of a request gets, how many bytes it may come to, and how many be made of.

    Of a layer's heads, of the layers of a rollout and of a row's weights many are read for the few that are sent.
    """

    selection: Selection
    max_bytes: int
    max_read_bytes: int
    weights: Weights
    """Those of the maps, until the response is written."""

    def of_stack(self, stack: AttentionStack) -> AttentionOrder | None:
        """Return what is asked for of one stack; None if nothing is."""
        selection = self.selection.of_stack(stack)
        return replace(self, selection=selection) if selection else None

    def check(self, source: Origin, field: str) -> None:
        """Raise `InvalidInputError` if even an output of one token would be over the budget."""
        self._axes_within_budget(source, None, None, field)

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
        axes = self._axes_within_budget(source, target, start, field)
        maps = build(self.selection, taps, axes)
        return convert.attention(package, self.selection, axes, maps, self.weights)

    def _axes_within_budget(
        self, source: Origin, target: Passage | None, start: Segment | None, field: str
    ) -> Mapping[AxisName, Axis]:
        """Return the axes of the maps. Raises `InvalidInputError`, with what would fit, if they are over the budget."""

        @cache
        def axes(granularity: Granularity) -> Mapping[AxisName, Axis]:
            return label(replace(self.selection, granularity=granularity), source, target, start)

        found = axes(self.selection.granularity)
        size, read = size_of(self.selection, found), size_read(self.selection, found)
        if size > self.max_bytes:
            lengths_known = target is not None or all(
                name in {AxisName.SOURCE, AxisName.PATCHES}
                for tap in self.selection.maps
                for name in axes_of(tap, found)
            )
            fitting = alternatives(self.selection, axes, self.max_bytes)
            raise self._over(size, fitting, "" if lengths_known else "at least ", field)
        if read > self.max_read_bytes:
            raise InvalidInputError(
                f"{field}: its attention is made of {sized(read)} of weights, with all heads of every layer that goes "
                f"in, and the server reads at most {sized(self.max_read_bytes)} for it; ask for fewer layers, shorten "
                "the input, or send fewer inputs at once",
                field=field,
            )
        return found

    def _over(self, size: int, fitting: Sequence[Alternative], bound: str, field: str) -> InvalidInputError:
        """Return the refusal of what would be sent; `bound` stands before figures that an output may raise."""
        options = [f"{one.options} ({bound}{sized(one.size)})" for one in fitting]
        advice = f"ask for {', or '.join(options)}, " if options else ""
        return InvalidInputError(
            f"{field}: its attention comes to {bound}{sized(size)}, and it may have {sized(self.max_bytes)} of the "
            f"request's; {advice}shorten the input, or send fewer inputs at once",
            field=field,
        )


def bytes_of(attention: attention_pb2.Attention) -> int:
    """Return the bytes of weights in a message, and of what they need to be read."""
    return sum(bytes_behind(one.weights) + len(one.key_indices) + len(one.row_scales) for one in attention.maps)


def sized(count: int) -> str:
    """Return a number of bytes for people to read, such as `1.5 MiB`."""
    size, unit = float(count), 0
    while size >= 1024 and unit < len(_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.1f} {_UNITS[unit]}" if unit else f"{count} bytes"

"""What a caller may change in a model's attention."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from regard.client.requests.attention import Kind, Stack
from regard.client.requests.values import enum_value, read_indices
from regard.errors import InvalidInputError
from regard.v1 import attention_pb2, intervention_pb2


@dataclass(frozen=True, slots=True)
class Places:
    """Positions of a source: all that any of these names.

    `spans` are (start, end) in a text's code points, and (start, end, part) in a pair's; `patches` are
    (row, column) or (row, column, rows, columns) of an image; `positions` are places on the axis of tokens.
    """

    spans: Sequence[tuple[int, int] | tuple[int, int, int]] = ()
    patches: Sequence[tuple[int, int] | tuple[int, int, int, int]] = ()
    positions: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class _InLayers:
    """Where something is changed.

    Empty means: `kinds` cross if the model has it and otherwise self, every stack that has them, all layers
    and all heads, both counted from 0.
    """

    kinds: Sequence[Kind] = ()
    stacks: Sequence[Stack] = ()
    layers: Sequence[int] = ()
    heads: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class KnockOut(_InLayers):
    """The heads give nothing: their outputs are 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalWindow(_InLayers):
    """Keys that are more than `radius` positions from the query, or so many rows or columns of patches, weigh 0.

    The special tokens of a text are near to everything if `spare_special`; those of an image always are.
    """

    radius: int
    spare_special: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Ban(_InLayers):
    """`keys` weigh 0, for `queries` or for all; the weights of the others grow in proportion."""

    keys: Places
    queries: Places | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bias(_InLayers):
    """`value`, from -1000 to 1000, is added to the scores of `keys` before the softmax, for `queries` or for all."""

    value: float
    keys: Places
    queries: Places | None = None


Intervention: TypeAlias = KnockOut | LocalWindow | Ban | Bias


def intervention_messages(interventions: Iterable[Intervention]) -> list[intervention_pb2.Intervention]:
    """Return the messages of what is changed. Raises `InvalidInputError` for what can't be sent at all."""
    return [_message(one, f"interventions[{index}]") for index, one in enumerate(interventions)]


def _message(one: Intervention, field: str) -> intervention_pb2.Intervention:
    kind, stack = attention_pb2.AttentionKind.Value, attention_pb2.AttentionStack.Value
    message = intervention_pb2.Intervention(
        kinds=[enum_value(kind, "ATTENTION_KIND_", word, f"{field}.kinds") for word in one.kinds],
        stacks=[enum_value(stack, "ATTENTION_STACK_", word, f"{field}.stacks") for word in one.stacks],
        layers=read_indices(one.layers, f"{field}.layers"),
        heads=read_indices(one.heads, f"{field}.heads"),
    )
    match one:
        case KnockOut():
            message.knock_out.SetInParent()
        case LocalWindow():
            (radius,) = read_indices([one.radius], f"{field}.radius")
            message.local_window.radius, message.local_window.spare_special = radius, one.spare_special
        case Ban():
            message.ban.CopyFrom(
                intervention_pb2.Ban(keys=_places(one.keys, field), queries=_queries(one.queries, field))
            )
        case Bias():
            message.bias.CopyFrom(
                intervention_pb2.Bias(
                    value=one.value, keys=_places(one.keys, field), queries=_queries(one.queries, field)
                )
            )
    return message


def _queries(places: Places | None, field: str) -> intervention_pb2.SourcePlaces | None:
    return None if places is None else _places(places, field)


def _places(places: Places, field: str) -> intervention_pb2.SourcePlaces:
    return intervention_pb2.SourcePlaces(
        spans=[
            intervention_pb2.TextSpan(**_numbers(span, ("start", "end", "part"), f"{field}.spans[{index}]"))
            for index, span in enumerate(places.spans)
        ],
        patches=[
            intervention_pb2.PatchRectangle(
                **_numbers(patch, ("row", "column", "rows", "columns"), f"{field}.patches[{index}]")
            )
            for index, patch in enumerate(places.patches)
        ],
        positions=read_indices(places.positions, f"{field}.positions"),
    )


def _numbers(given: Sequence[int], names: Sequence[str], field: str) -> dict[str, int]:
    if not 2 <= len(given) <= len(names):
        raise InvalidInputError(f"{field} must be ({', '.join(names)}), from 2 to {len(names)} numbers", field=field)
    return dict(zip(names, read_indices(given, field), strict=False))

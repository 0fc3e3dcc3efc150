"""The interventions of a request: from messages to what a package can do, and on to what the engine is asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from regard.attention.axes import Passage, Patches
from regard.attention.interventions import (
    Action,
    Bias,
    Intervention,
    InterventionChoice,
    KnockOut,
    LocalWindow,
    changes,
    intervene,
)
from regard.attention.places import Places, Rectangle, Span
from regard.attention.selection import AttentionChoice
from regard.engine.interventions import Interventions, LayerIntervention
from regard.errors import InvalidInputError
from regard.manifest import Manifest
from regard.rpc import convert
from regard.rpc.reading import Reading
from regard.v1 import intervention_pb2

MAX_INTERVENTIONS = 64
MAX_PLACES = 1024
MAX_BIAS = 1000.0


@dataclass(frozen=True, slots=True)
class InterventionOrder:
    """What a request changes in a model, whatever its inputs are."""

    manifest: Manifest
    interventions: tuple[Intervention, ...]
    max_bytes: int
    """What they may add to the scores of one input comes to at most so much."""

    def of(self, reading: Reading, field: str) -> Interventions:
        """Return what the engine is asked to change for one input. Raises `InvalidInputError` as `changes` does."""
        source = reading.passage
        assert isinstance(source, Passage | Patches), "no model of sound takes interventions"
        found = changes(self.interventions, self.manifest, source, field, self.max_bytes)
        return {name: LayerIntervention(change.gates, change.biases) for name, change in found.items()}


def intervention_order(
    messages: Sequence[intervention_pb2.Intervention], manifest: Manifest, max_bytes: int
) -> InterventionOrder | None:
    """Return what the messages ask for, if there are any; `max_bytes` is for what is added to each input's scores.

    Raises `InvalidInputError`, naming the field, for what can't be done.
    """
    if not messages:
        return None
    if len(messages) > MAX_INTERVENTIONS:
        raise InvalidInputError(
            f"interventions: {len(messages)} given; a request takes at most {MAX_INTERVENTIONS}", field="interventions"
        )
    places = sum(map(_count_places, messages))
    if places > MAX_PLACES:
        raise _refused(
            "interventions", f"they name {places} spans, patches and positions; at most {MAX_PLACES} are taken"
        )
    choices = [_choice(message, f"interventions[{index}]") for index, message in enumerate(messages)]
    return InterventionOrder(manifest, intervene(choices, manifest), max_bytes)


def _count_places(message: intervention_pb2.Intervention) -> int:
    """Return how many places an intervention names, without a look at any."""
    named = (message.ban.keys, message.ban.queries, message.bias.keys, message.bias.queries)
    return sum(len(places.spans) + len(places.patches) + len(places.positions) for places in named)


def _choice(message: intervention_pb2.Intervention, field: str) -> InterventionChoice:
    layers = AttentionChoice(
        kinds=convert.several(message.kinds, convert.KINDS, f"{field}.kinds"),
        stacks=convert.several(message.stacks, convert.STACKS, f"{field}.stacks"),
        layers=convert.each_once(message.layers, f"{field}.layers"),
        heads=convert.each_once(message.heads, f"{field}.heads"),
    )
    return InterventionChoice(field, layers, _action(message, field))


def _action(message: intervention_pb2.Intervention, field: str) -> Action:
    match message.WhichOneof("action"):
        case "knock_out":
            return KnockOut()
        case "local_window":
            return LocalWindow(message.local_window.radius, message.local_window.spare_special)
        case "ban":
            return Bias(-math.inf, *_edges(message.ban, f"{field}.ban"))
        case "bias":
            value = message.bias.value
            if not abs(value) <= MAX_BIAS:
                raise _refused(f"{field}.bias.value", f"{value} is not from {-MAX_BIAS:g} to {MAX_BIAS:g}")
            return Bias(value, *_edges(message.bias, f"{field}.bias"))
        case _:
            raise _refused(field, "says not what to do; set knock_out, local_window, ban or bias")


def _edges(message: intervention_pb2.Ban | intervention_pb2.Bias, field: str) -> tuple[Places, Places | None]:
    keys = _places(message.keys, f"{field}.keys")
    return keys, _places(message.queries, f"{field}.queries") if message.HasField("queries") else None


def _places(message: intervention_pb2.SourcePlaces, field: str) -> Places:
    if not (message.spans or message.patches or message.positions):
        raise _refused(field, "names nothing; give spans, patches or positions")
    for index, span in enumerate(message.spans):
        if span.end <= span.start:
            raise _refused(f"{field}.spans[{index}]", f"{span.start} to {span.end} is empty")
    return Places(
        field,
        tuple(Span(span.start, span.end, span.part) for span in message.spans),
        tuple(Rectangle(one.row, one.column, one.rows or 1, one.columns or 1) for one in message.patches),
        tuple(message.positions),
    )


def _refused(field: str, problem: str) -> InvalidInputError:
    return InvalidInputError(f"{field}: {problem}", field=field)

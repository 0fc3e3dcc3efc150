"""What a request changes in a model's attention: its choices against a package, and against one source."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from regard.attention.axes import Patches
from regard.attention.places import BoolArray, Places, Source, marked
from regard.attention.selection import AttentionChoice, select
from regard.errors import InvalidInputError
from regard.manifest import Manifest, TapSpec

MAX_BIASES = 16
"""The most different biases of one request: each is a number for every query and key."""

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class KnockOut:
    """The head gives nothing."""


@dataclass(frozen=True, slots=True)
class LocalWindow:
    """A query sees the keys that are at most `radius` positions away, before and after it; of patches, in the grid.

    What is special in an image, and in a text if they are spared, is near to everything.
    """

    radius: int
    spares_special: bool = False


@dataclass(frozen=True, slots=True)
class Bias:
    """`value` is added to the scores of `keys`, as `queries` see them, or as all do; minus infinity bans them."""

    value: float
    keys: Places
    queries: Places | None = None


Action = KnockOut | LocalWindow | Bias


@dataclass(frozen=True, slots=True)
class InterventionChoice:
    """One intervention as a request asks for it; `field` names it. Of its `layers`, only the taps are looked at."""

    field: str
    layers: AttentionChoice
    action: Action


class LayerChange(NamedTuple):
    """The gates [H] of a layer's heads, and for each head what is added to its scores, if anything is."""

    gates: FloatArray
    biases: list[FloatArray | None]


@dataclass(frozen=True, slots=True)
class Intervention:
    """One intervention in a package: the taps of the layers, the heads (empty for all), and what is done to them."""

    field: str
    taps: tuple[TapSpec, ...]
    heads: tuple[int, ...]
    action: Action

    def reaches(self, head: int) -> bool:
        """Tell whether it is in this head of its layers."""
        return not self.heads or head in self.heads


def intervene(choices: Iterable[InterventionChoice], manifest: Manifest) -> tuple[Intervention, ...]:
    """Return what `choices` come to in a package.

    Raises `InvalidInputError`, naming the field, for layers and heads that it lacks, as `select` does; for
    a package without the graphs, for what has no meaning in an attention, and for too much.
    """
    interventions = tuple(_chosen(choice, manifest) for choice in choices)
    for intervention in interventions:
        for tap in intervention.taps:
            _check(intervention, tap, manifest)
    biases = {(tap.graph, tap.kind, own) for tap in manifest.taps for own in _biasing(interventions, tap) if own}
    if len(biases) > MAX_BIASES:
        raise InvalidInputError(
            f"interventions: their biases come together in {len(biases)} ways, over heads and layers; at most "
            f"{MAX_BIASES} are taken; choose the same heads and layers for more of them, or ask in several requests",
            field="interventions",
        )
    return interventions


def _chosen(choice: InterventionChoice, manifest: Manifest) -> Intervention:
    try:
        selection = select(choice.layers, manifest)
    except InvalidInputError as error:
        problem = error.message.removeprefix("attention.")
        field = error.field.removeprefix("attention.")
        raise InvalidInputError(f"{choice.field}.{problem}", field=f"{choice.field}.{field}") from error
    return Intervention(choice.field, selection.taps, selection.heads, choice.action)


def _check(intervention: Intervention, tap: TapSpec, manifest: Manifest) -> None:
    field, action = intervention.field, intervention.action
    graph = manifest.graphs.get(tap.graph)
    if graph is None or graph.intervened_graph is None:
        raise InvalidInputError(
            f"{field}: model {manifest.name} takes no interventions in its {tap.stack}, because its package was "
            "exported without; export it again with regard-export --interventions, or use another model",
            field=field,
        )
    where = f"the {tap.stack}'s {tap.kind} attention"
    if tap.graph == "step" and tap.kind == "self" and not isinstance(action, KnockOut):
        raise InvalidInputError(
            f"{field}: in {where} heads can be knocked out, and nothing else, for its keys are the output's own; "
            "choose other kinds or stacks",
            field=field,
        )
    if tap.kind == "cross" and isinstance(action, LocalWindow):
        raise InvalidInputError(
            f"{field}.local_window: in {where} queries and keys are of different sequences, of which no two "
            "positions are near; choose kinds and stacks of self-attention",
            field=f"{field}.local_window",
        )
    if tap.kind == "cross" and isinstance(action, Bias) and action.queries is not None:
        raise InvalidInputError(
            f"{action.queries.field}: in {where} the queries are the output's tokens, which aren't known before; "
            "leave them out for all of them",
            field=action.queries.field,
        )


def _biasing(interventions: Sequence[Intervention], tap: TapSpec) -> list[tuple[int, ...]]:
    """Return for each head of a tap which interventions, by their index, are added to its scores."""
    adding = [
        index for index, one in enumerate(interventions) if not isinstance(one.action, KnockOut) and tap in one.taps
    ]
    return [tuple(index for index in adding if interventions[index].reaches(head)) for head in range(tap.heads)]


def changes(
    interventions: Sequence[Intervention], manifest: Manifest, source: Source, field: str, max_bytes: int
) -> dict[str, LayerChange]:
    """Return what `interventions` come to for one source, by the taps of the layers that they change.

    Heads that are biased alike share one array. Raises `InvalidInputError`, naming the input's `field`,
    for arrays of more than `max_bytes`, for places that the source lacks and where a query would be left
    without any key.
    """
    found: dict[str, LayerChange] = {}
    added = _Added(interventions, source, field)
    added.check_size(manifest, max_bytes)
    for tap in manifest.taps:
        own = [one for one in interventions if tap in one.taps]
        if own:
            gates = np.ones(tap.heads, np.float32)
            for one in own:
                if isinstance(one.action, KnockOut):
                    gates[list(one.heads) or slice(None)] = 0
            biases = [added.bias(indices, of_steps=tap.graph == "step") for indices in _biasing(interventions, tap)]
            found[tap.name] = LayerChange(gates, biases)
    return found


class _Added:
    """What is added to scores of a source, by the interventions that add it, each made once."""

    def __init__(self, interventions: Sequence[Intervention], source: Source, field: str) -> None:
        self._interventions = interventions
        self._source = source
        self._field = field
        self._size = len(source.segments)
        self._made: dict[tuple[bool, tuple[int, ...]], FloatArray] = {}
        self._named: dict[int, tuple[BoolArray, BoolArray | None]] = {}

    def check_size(self, manifest: Manifest, max_bytes: int) -> None:
        """Raise `InvalidInputError` if all that is added comes to more than `max_bytes`."""
        ways = {
            (tap.graph == "step", indices)
            for tap in manifest.taps
            for indices in _biasing(self._interventions, tap)
            if indices
        }
        size = sum(math.prod(self._shape(of_steps)) for of_steps, _ in ways) * np.dtype(np.float32).itemsize
        if size > max_bytes:
            raise InvalidInputError(
                f"{self._field}: what its interventions add to scores, in {len(ways)} ways over heads and layers, "
                f"comes to {size} bytes, and it may have {max_bytes}; shorten the input, send fewer inputs at once, "
                "or choose the same heads and layers for more interventions",
                field=self._field,
            )

    def bias(self, indices: tuple[int, ...], *, of_steps: bool) -> FloatArray | None:
        """Return the sum of some of them, [S, S], or [1, S] of a decoder's steps; None of none."""
        if not indices:
            return None
        key = (of_steps, indices)
        if key not in self._made:
            total = np.zeros(self._shape(of_steps), np.float32)
            for index in indices:
                total += self._of(index, total.shape)
            self._require_keys(total, indices)
            self._made[key] = total
        return self._made[key]

    def _shape(self, of_steps: bool) -> tuple[int, int]:
        return (1 if of_steps else self._size, self._size)

    def _of(self, index: int, shape: tuple[int, int]) -> FloatArray:
        action = self._interventions[index].action
        if isinstance(action, LocalWindow):
            return np.where(_near(action, self._source), np.float32(0), np.float32(-np.inf))
        assert isinstance(action, Bias)
        if index not in self._named:
            queries = None if action.queries is None else marked(action.queries, self._source, self._field)
            self._named[index] = marked(action.keys, self._source, self._field), queries
        keys, queries = self._named[index]
        edges = np.broadcast_to(keys, shape)
        if queries is not None:
            edges = edges & queries[:, np.newaxis]
        return np.where(edges, np.float32(action.value), np.float32(0))

    def _require_keys(self, total: FloatArray, indices: tuple[int, ...]) -> None:
        lost = np.flatnonzero(np.isneginf(total).all(axis=1))
        if lost.size:
            names = " and ".join(self._interventions[index].field for index in indices)
            who = "the output's tokens" if len(total) == 1 else f"position {lost[0]} of the source"
            raise InvalidInputError(
                f"{self._field}: {names} would leave {who} no key to attend to; ban fewer, or knock the heads out",
                field=self._field,
            )


def _near(window: LocalWindow, source: Source) -> BoolArray:
    """Return which keys are within the window of each query, [S, S]."""
    segments = source.segments
    if isinstance(source, Patches):
        leading, rows, columns = len(source.leading), source.grid.rows, source.grid.columns
        grid = np.stack(np.divmod(np.arange(rows * columns), columns))
        distances = np.zeros((len(segments), len(segments)), np.intp)
        distances[leading:, leading:] = np.abs(grid[:, :, np.newaxis] - grid[:, np.newaxis]).max(axis=0)
    else:
        places = np.arange(len(segments))
        distances = np.abs(places[:, np.newaxis] - places)
        if window.spares_special:
            special = np.array([segment.special for segment in segments])
            distances[special] = distances[:, special] = 0
    return distances <= window.radius

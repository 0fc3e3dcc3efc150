"""What a request reads of a model's own attention to explain an input, and what that says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from regard.attention.heads import mean_of_heads, tap_name
from regard.attention.parts import Parts
from regard.attention.saliency import last_crossing, last_layer, rolled_out, rolled_out_crossing
from regard.engine.request import FloatArray
from regard.errors import InvalidInputError
from regard.manifest import AlignmentSpec, Manifest, TapSpec
from regard.rpc.attention import sized
from regard.rpc.explaining import Floats, Method, Wish

Taps = Mapping[str, FloatArray]
Needed = Mapping[Method, Sequence[TapSpec]]
"""What each method reads; nothing, if the model can't give it."""


@dataclass(frozen=True, slots=True)
class SelfAttention:
    """The self-attention of a classifier's layers, as far as a request needs it."""

    needed: Needed

    @classmethod
    def of(cls, wish: Wish, manifest: Manifest, length: int, max_bytes: int, field: str) -> SelfAttention:
        """Return what is needed of an input of `length` positions, at most `max_bytes`; raises what `_fitting` does."""
        layers = _stack(manifest, "classifier", "self")
        norms = _norms(manifest, "classifier", "self")
        needed = {Method.LAST_LAYER: layers[-1:], Method.ROLLOUT: layers, Method.VALUE_NORM: norms[-1:]}
        return cls(_fitting(needed, wish, lambda tap: tap.heads * length * length, max_bytes, field))

    @property
    def taps(self) -> frozenset[str]:
        """The taps to ask the engine for."""
        return _names(self.needed)

    def read(self, taps: Taps, parts: Parts) -> dict[Method, Floats]:
        """Return what each method says of the parts of one input, [1, parts]."""
        found = {}
        for method, needed in self.needed.items():
            says = rolled_out if method is Method.ROLLOUT else last_layer
            found[method] = says([taps[tap.name] for tap in needed], parts)[np.newaxis]
        return found


@dataclass(frozen=True, slots=True)
class CrossAttention:
    """The attention of a generation from its encoder to its output, as far as a request needs it."""

    encoder: Sequence[TapSpec]
    own: Sequence[TapSpec]
    crossing: Sequence[TapSpec]
    alignment: AlignmentSpec | None
    needed: Needed

    @classmethod
    def of(cls, wish: Wish, manifest: Manifest, source: int, target: int, max_bytes: int, field: str) -> CrossAttention:
        """Return what is needed of so many positions, at most `max_bytes`; raises what `_fitting` does."""
        encoder, own, crossing = (
            _stack(manifest, graph, kind) for graph, kind in (("encoder", "self"), ("step", "self"), ("step", "cross"))
        )
        aligning = {tap_name(head) for head in manifest.alignment.heads} if manifest.alignment else set()
        needed = {
            Method.LAST_LAYER: crossing[-1:],
            Method.ALIGNMENT_HEADS: [tap for tap in manifest.taps if tap.name in aligning],
            Method.ROLLOUT: [*encoder, *own, *crossing] if encoder and own and crossing else [],
            Method.VALUE_NORM: _norms(manifest, "step", "cross")[-1:],
        }

        def weights(tap: TapSpec) -> int:
            queries = source if tap.graph == "encoder" else target
            return tap.heads * queries * (queries if tap.kind == "self" else source)

        return cls(encoder, own, crossing, manifest.alignment, _fitting(needed, wish, weights, max_bytes, field))

    @property
    def taps(self) -> frozenset[str]:
        """The taps to ask the engine for."""
        return _names(self.needed)

    def read(self, taps: Taps, parts: Parts, targets: Sequence[Sequence[int]]) -> dict[Method, Floats]:
        """Return what parts are worth by each method to each target, the mean of its tokens, [targets, parts]."""
        found = {}
        for method in self.needed:
            weights = parts.sums(self._flow(method, taps)).astype(np.float64)
            found[method] = np.array([weights[list(tokens)].mean(axis=0) for tokens in targets])
        return found

    def _flow(self, method: Method, taps: Taps) -> FloatArray:
        encoder, own, crossing = (
            [taps[tap.name] for tap in stack if tap.name in taps] for stack in (self.encoder, self.own, self.crossing)
        )
        if method is Method.ROLLOUT:
            return rolled_out_crossing(encoder, own, crossing)
        if method is Method.ALIGNMENT_HEADS and self.alignment:
            return mean_of_heads(self.alignment, taps)
        if method is Method.VALUE_NORM:
            return last_crossing([taps[tap.name] for tap in self.needed[method]])
        return last_crossing(crossing)


def _stack(manifest: Manifest, graph: str, kind: str) -> list[TapSpec]:
    """Return the taps of a stack's layers, the first one first: of all heads' mean, where the graph gives it."""
    layers = {tap.layer: tap for tap in manifest.taps if (tap.graph, tap.kind) == (graph, kind)}
    means = [tap for tap in manifest.reduced_taps if (tap.graph, tap.kind, tap.reduction) == (graph, kind, "mean")]
    layers |= {tap.layer: tap for tap in means}
    return [layers[layer] for layer in sorted(layers)]


def _norms(manifest: Manifest, graph: str, kind: str) -> list[TapSpec]:
    """Return the taps of a stack's layers that are multiplied by norms, the first one first."""
    found = [tap for tap in manifest.norm_taps if (tap.graph, tap.kind) == (graph, kind)]
    return sorted(found, key=lambda tap: tap.layer)


def _names(needed: Needed) -> frozenset[str]:
    return frozenset(tap.name for taps in needed.values() for tap in taps)


def _fitting(needed: Needed, wish: Wish, weights: Callable[[TapSpec], int], max_bytes: int, field: str) -> Needed:
    """Return what is read for each method that a request wants and that fits into `max_bytes` with those before it.

    `weights` tells how many a tap has. Raises `InvalidInputError`, naming `field`, if a method doesn't fit that the
    request names.
    """
    fitting: dict[Method, Sequence[TapSpec]] = {}
    sizes: dict[str, int] = {}
    for method, taps in needed.items():
        if not taps or not wish.wants(method):
            continue
        together = sizes | {tap.name: weights(tap) * np.dtype(np.float32).itemsize for tap in taps}
        size = sum(together.values())
        if size <= max_bytes:
            fitting[method], sizes = taps, together
        elif wish.methods:
            raise InvalidInputError(
                f"{field}: with {method}, what is read of its attention comes to {sized(size)}, and the server "
                f"reads at most {sized(max_bytes)} for it; ask for other methods, shorten the input, or send "
                "fewer inputs at once",
                field=field,
            )
    return fitting

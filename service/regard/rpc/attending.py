"""What a request reads of a model's own attention to explain an input, and what that says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from regard.attention.heads import mean_of_heads, tap_name
from regard.attention.parts import Parts
from regard.attention.saliency import last_crossing, last_layer, rolled_out, rolled_out_crossing
from regard.engine.request import FloatArray
from regard.manifest import AlignmentSpec, Manifest, TapSpec
from regard.rpc.explaining import Floats, Method, Wish

Taps = Mapping[str, FloatArray]


@dataclass(frozen=True, slots=True)
class SelfAttention:
    """The self-attention of a classifier's layers, the first one first, as far as a request needs it."""

    layers: tuple[TapSpec, ...]
    methods: tuple[Method, ...]

    @classmethod
    def of(cls, wish: Wish, manifest: Manifest, length: int, max_bytes: int) -> SelfAttention:
        """Return what is needed of an input of `length` positions; nothing that comes to more than `max_bytes`."""
        layers = _stack(manifest, "classifier", "self")
        needed = {Method.LAST_LAYER: layers[-1:], Method.ROLLOUT: layers}
        methods = tuple(
            method for method, taps in needed.items() if wish.wants(method) and _fit(taps, length, length, max_bytes)
        )
        return cls(max((needed[method] for method in methods), key=len, default=()), methods)

    @property
    def taps(self) -> frozenset[str]:
        """The taps to ask the engine for."""
        return frozenset(tap.name for tap in self.layers)

    def read(self, taps: Taps, parts: Parts) -> dict[Method, Floats]:
        """Return what each method says of the parts of one input, [1, parts]."""
        layers = [taps[tap.name] for tap in self.layers]
        says = {Method.LAST_LAYER: last_layer, Method.ROLLOUT: rolled_out}
        return {method: says[method](layers, parts)[np.newaxis] for method in self.methods}


@dataclass(frozen=True, slots=True)
class CrossAttention:
    """The attention of a generation from its encoder to its output, as far as a request needs it."""

    encoder: tuple[TapSpec, ...]
    own: tuple[TapSpec, ...]
    crossing: tuple[TapSpec, ...]
    alignment: AlignmentSpec | None
    methods: tuple[Method, ...]

    @classmethod
    def of(cls, wish: Wish, manifest: Manifest, source: int, target: int, max_bytes: int) -> CrossAttention:
        """Return what is needed of so many source and target positions; nothing that is more than `max_bytes`."""
        encoder, own, crossing = (
            _stack(manifest, graph, kind) for graph, kind in (("encoder", "self"), ("step", "self"), ("step", "cross"))
        )
        methods = []
        if wish.wants(Method.LAST_LAYER) and _fit(crossing, target, source, max_bytes):
            methods.append(Method.LAST_LAYER)
        whole = bool(encoder and own) and _fit(encoder, source, source, max_bytes)
        if wish.wants(Method.ROLLOUT) and whole and _fit(crossing, target, source + target, max_bytes):
            methods.append(Method.ROLLOUT)
        if wish.wants(Method.ALIGNMENT_HEADS) and manifest.alignment and _fit(crossing, target, source, max_bytes):
            methods.append(Method.ALIGNMENT_HEADS)
        return cls(encoder, own, crossing, manifest.alignment, tuple(methods))

    @property
    def taps(self) -> frozenset[str]:
        """The taps to ask the engine for."""
        needed = [tap.name for tap in self.crossing[-1:] if Method.LAST_LAYER in self.methods]
        if Method.ROLLOUT in self.methods:
            needed += [tap.name for tap in (*self.encoder, *self.own, *self.crossing)]
        if Method.ALIGNMENT_HEADS in self.methods and self.alignment:
            needed += map(tap_name, self.alignment.heads)
        return frozenset(needed)

    def read(self, taps: Taps, parts: Parts, targets: Sequence[Sequence[int]]) -> dict[Method, Floats]:
        """Return what parts are worth by each method to each target, the mean of its tokens, [targets, parts]."""
        found = {}
        for method in self.methods:
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
        return last_crossing(crossing)


def _stack(manifest: Manifest, graph: str, kind: str) -> tuple[TapSpec, ...]:
    taps = (tap for tap in manifest.taps if (tap.graph, tap.kind) == (graph, kind))
    return tuple(sorted(taps, key=lambda tap: tap.layer))


def _fit(taps: Sequence[TapSpec], queries: int, keys: int, max_bytes: int) -> bool:
    """Tell whether there are such taps, and their weights come to no more than `max_bytes`."""
    heads = sum(tap.heads for tap in taps)
    return 0 < heads * queries * keys * np.dtype(np.float32).itemsize <= max_bytes

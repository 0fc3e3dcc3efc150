"""What a request reads of a model's own attention to explain an input, and what that says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from regard.attention.parts import Parts
from regard.attention.saliency import last_layer, rolled_out
from regard.engine.request import FloatArray
from regard.manifest import Manifest, TapSpec
from regard.rpc.explaining import Floats, Method, Wish


@dataclass(frozen=True, slots=True)
class SelfAttention:
    """The self-attention of an encoder's layers, the first one first, as far as a request needs it."""

    layers: tuple[TapSpec, ...]
    methods: tuple[Method, ...]

    @classmethod
    def of(cls, wish: Wish, manifest: Manifest, length: int, max_bytes: int) -> SelfAttention:
        """Return what is needed of an input of `length` positions; nothing that comes to more than `max_bytes`."""
        layers = sorted((tap for tap in manifest.taps if tap.graph == "classifier"), key=lambda tap: tap.layer)
        methods = []
        for method, needed in ((Method.LAST_LAYER, layers[-1:]), (Method.ROLLOUT, layers)):
            size = sum(tap.heads for tap in needed) * length * length * np.dtype(np.float32).itemsize
            if needed and wish.wants(method) and size <= max_bytes:
                methods.append(method)
        return cls(tuple(layers if Method.ROLLOUT in methods else layers[-1:] if methods else ()), tuple(methods))

    @property
    def taps(self) -> frozenset[str]:
        """The taps to ask the engine for."""
        return frozenset(tap.name for tap in self.layers)

    def read(self, taps: Mapping[str, FloatArray], parts: Parts) -> dict[Method, Floats]:
        """Return what each method says of the parts of one input, [1, parts]."""
        layers = [taps[tap.name] for tap in self.layers]
        says = {Method.LAST_LAYER: last_layer, Method.ROLLOUT: rolled_out}
        return {method: says[method](layers, parts)[np.newaxis] for method in self.methods}

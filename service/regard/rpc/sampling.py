"""Attention's health, measured in a share of the requests."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

from regard.attention.axes import Origin, positions_of
from regard.attention.heads import mean_of_heads, tap_name
from regard.attention.health import Health, measure
from regard.engine.request import GeneratedSequence
from regard.manifest import AlignmentSpec, Manifest
from regard.text.codec import TextCodec


@dataclass(frozen=True, slots=True)
class HealthSample:
    """What is looked at in one request: the alignment heads, or all heads of cross-attention if none are known."""

    tap_names: frozenset[str]
    heads: int
    """How many heads the taps hold, looked at or not."""
    alignment: AlignmentSpec | None

    def size_of(self, queries: int, keys: int) -> int:
        """Return the bytes of weights that rows hold for so many queries over so many keys."""
        return self.heads * queries * keys * np.dtype(np.float32).itemsize

    def measure(self, codec: TextCodec, sequence: GeneratedSequence, source: Origin) -> Health:
        """Return the health of one output, by the mean of the heads."""
        if self.alignment is not None:
            weights = mean_of_heads(self.alignment, sequence.taps)
        else:
            weights = np.concatenate([sequence.taps[name] for name in sorted(self.tap_names)]).mean(axis=0)
        sinks = [segment.special for segment in positions_of(source)]
        special = [codec.is_silent(token_id) for token_id in sequence.token_ids]
        return measure(weights, sequence.token_ids, sinks, special)


def draw_sample(manifest: Manifest, share: float, *, tapped: bool) -> HealthSample | None:
    """Return what is looked at in a request, as chance has it for a `share` of them; None if nothing is.

    Nothing is looked at without cross-attention; nor where attention comes from a graph of its own,
    whose answers may differ in rounding, unless the request runs that anyway because it is `tapped`.
    """
    if share == 0 or random.random() >= share:
        return None
    if manifest.alignment is not None:
        names = frozenset(tap_name(head) for head in manifest.alignment.heads)
    else:
        names = frozenset(tap.name for tap in manifest.taps if tap.kind == "cross" and tap.graph == "step")
    apart = any(graph.tap_graph for graph in manifest.graphs.values())
    if not names or (apart and not tapped):
        return None
    return HealthSample(names, sum(tap.heads for tap in manifest.taps if tap.name in names), manifest.alignment)

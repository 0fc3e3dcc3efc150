"""The heads of a model that can be knocked out, numbered through its layers."""

from __future__ import annotations

import numpy as np

from regard.attention.knock_out import Heads

from .packages import taps_of

HEADS = Heads((*taps_of("encoder", "self", "encoder", [3, 3]), *taps_of("step", "cross", "decoder", [2])))


def test_each_number_is_a_head_of_one_layer() -> None:
    """Only the layers of the numbers that are gone change, and in them only those heads."""
    gates = {name: change.gates.tolist() for name, change in HEADS.without(frozenset({2, 3, 7})).items()}
    assert HEADS.count == 8
    assert gates == {"encoder.self.0": [1, 1, 0], "encoder.self.1": [0, 1, 1], "decoder.cross.0": [1, 0]}
    assert HEADS.without(frozenset({6})).keys() == {"decoder.cross.0"}


def test_weights_go_back_to_the_layers_that_they_are_of() -> None:
    """A map for each stack and kind, [outcomes, layers, heads]."""
    encoder, decoder = HEADS.maps(np.arange(16.0).reshape(2, 8))
    np.testing.assert_array_equal(encoder.weights, [[[0, 1, 2], [3, 4, 5]], [[8, 9, 10], [11, 12, 13]]])
    np.testing.assert_array_equal(decoder.weights, [[[6, 7]], [[14, 15]]])
    assert [tap.name for tap in encoder.taps] == ["encoder.self.0", "encoder.self.1"]

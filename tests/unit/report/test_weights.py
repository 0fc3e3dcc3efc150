from __future__ import annotations

import base64

import numpy as np
import pytest

from regard.viewer.weights import MOST_FINE_WEIGHTS, choose_encoding, encode_weights

from .answers import weights


@pytest.mark.parametrize(("encoding", "bound"), [("uint16", 0.5 / 65535), ("uint8", 0.5 / 255)])
def test_stored_weights_are_as_exact_as_they_say(encoding, bound):
    """What is read back differs from the weights by the declared error at most, which is half a step at most."""
    exact = weights(7, 11, seed=1)

    encoded = encode_weights(exact, encoding)

    stored = np.frombuffer(base64.b64decode(encoded.base64), np.dtype(encoding).newbyteorder("<"))
    read = stored.reshape(exact.shape) / np.iinfo(encoding).max
    assert np.abs(read - exact).max() == pytest.approx(encoded.error, abs=1e-12)
    assert 0 < encoded.error <= bound


def test_large_pages_store_weights_more_coarsely():
    """A page is stored in 16 bits a weight up to its limit, in 8 beyond."""
    assert choose_encoding(MOST_FINE_WEIGHTS) == "uint16"
    assert choose_encoding(MOST_FINE_WEIGHTS + 1) == "uint8"


def test_rounding_beyond_one_is_no_weight():
    """A sum that floating point left just above 1 is stored as 1."""
    encoded = encode_weights(np.array([[[1.0000002, 0.0]]], np.float32), "uint16")

    assert base64.b64decode(encoded.base64) == b"\xff\xff\x00\x00"


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -0.5, 1.5])
def test_what_is_no_weight_is_refused(wrong):
    """Numbers outside 0 to 1, and what is no number, are refused."""
    with pytest.raises(ValueError, match="between 0 and 1"):
        encode_weights(np.array([[[wrong, 0.0]]], np.float32), "uint16")

"""Weights as bytes: what the client reads is what was computed, within the error that is declared."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from regard.answers import AttentionMap
from regard.attention.axes import Axis, AxisName
from regard.attention.encoding import Encoding, encode, encoded_size
from regard.attention.maps import AttentionMap as BuiltMap
from regard.attention.selection import Granularity, Reduction, Selection
from regard.client.results.attention import read_attention
from regard.manifest import Package, TapSpec, Task
from regard.rpc import convert
from regard.rpc.wire import Weights, serialize
from regard.text.segment import Segment
from regard.v1 import attention_pb2

from .packages import manifest_of

Array = npt.NDArray[np.float32]
TAP = TapSpec(
    graph="classifier", kind="self", stack="encoder", layer=0, heads=4, output="self.0", rows_input="self_tap_rows"
)
WEIGHTS = arrays(
    np.float32,
    array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=6),
    elements=st.one_of(
        st.floats(0, 1, width=32),
        st.floats(0, 2**-13, width=32),
        st.sampled_from([0.0, 0.5, 1.0, 1 / 3, 2**-24, 1e-38, 1e-45, float(np.nextafter(np.float32(1), 2))]),
    ),
)


def sent_and_read(weights: Array, encoding: Encoding, top_k: int = 0) -> AttentionMap:
    """Return a map as the client reads it from the server's message."""
    segments = tuple(Segment(str(place), 0, 0, False, None) for place in range(max(weights.shape)))
    axes = {
        AxisName.TARGET: Axis(AxisName.TARGET, segments[: weights.shape[1]]),
        AxisName.SOURCE: Axis(AxisName.SOURCE, segments[: weights.shape[2]]),
    }
    selection = Selection((TAP,), (TAP,), (), Reduction.NONE, Granularity.TOKEN, top_k, encoding)
    built = BuiltMap(TAP, (0,), Reduction.NONE, weights, AxisName.TARGET, AxisName.SOURCE)
    package: Any = Package(None, manifest_of(Task.CLASSIFICATION), "0" * 64)  # type: ignore[arg-type]
    waiting = Weights()
    message = convert.attention(package, selection, axes, [built], waiting)
    (one,) = read_attention(attention_pb2.Attention.FromString(serialize(message, waiting))).maps
    return one


@pytest.mark.parametrize("encoding", Encoding)
@settings(max_examples=100, deadline=None)
@given(weights=WEIGHTS)
def test_no_weight_is_further_off_than_declared(encoding: Encoding, weights: Array) -> None:
    """Whatever the weights: flat rows, peaked ones, zeros, and numbers too small for the encoding."""
    read = sent_and_read(weights, encoding)

    assert read.encoding == encoding.value
    assert read.weights.dtype == np.float32
    error = np.abs(read.weights.astype(np.float64) - weights.astype(np.float64)).max()
    assert error <= read.max_error
    if encoding is Encoding.FLOAT32:
        assert read.max_error == 0
    elif encoding is Encoding.FLOAT16:
        assert read.max_error <= (2**-12 if weights.max() <= 1 else 2**-11)
    else:
        assert read.max_error <= weights.max() / 509 + 1e-30
        rows = weights.astype(np.float64).max(axis=2, keepdims=True)
        assert (np.abs(read.weights - weights.astype(np.float64)) <= rows / 509 + 1e-30).all()


@settings(max_examples=100, deadline=None)
@given(weights=WEIGHTS)
def test_a_float16_is_the_nearest(weights: Array) -> None:
    """Bit by bit what NumPy makes of it, which takes longer."""
    assert encode(weights, Encoding.FLOAT16).weights == weights.astype("<f2").tobytes()


def test_every_float16_of_a_weight_and_what_is_between_two() -> None:
    """From 0 to 1, each stays itself; halfway to the next it becomes the even one of both; in maps of any size."""
    halves = np.arange(np.float16(1).view(np.uint16) + 1, dtype=np.uint16).view(np.float16).astype(np.float32)
    between = np.concatenate([halves, (halves[:-1] + halves[1:]) / 2] * 3)[np.newaxis, np.newaxis]

    assert between.size > 1 << 16
    assert encode(between, Encoding.FLOAT16).weights == between.astype("<f2").tobytes()


@pytest.mark.parametrize("encoding", Encoding)
@pytest.mark.parametrize("largest", [1.5, 37.2, 65504.0, 65510.0, 3e5])
def test_norms_of_any_size_are_no_further_off_than_declared(encoding: Encoding, largest: float) -> None:
    """Also those that no float16 holds, which become its largest."""
    norms = np.linspace(0, largest, 12, dtype=np.float32).reshape(1, 2, 6)
    read = sent_and_read(norms, encoding)

    assert np.isfinite(read.weights).all()
    assert np.abs(read.weights.astype(np.float64) - norms.astype(np.float64)).max() <= read.max_error
    assert read.max_error <= largest / 500 + max(largest - 65504, 0)


@pytest.mark.parametrize("encoding", Encoding)
@settings(max_examples=100, deadline=None)
@given(weights=WEIGHTS, top_k=st.integers(1, 7))
def test_the_largest_of_each_query_are_where_they_were(encoding: Encoding, weights: Array, top_k: int) -> None:
    """From the largest on, at their keys; what was left out is no larger; a map with no more keys comes whole."""
    read = sent_and_read(weights, encoding, top_k)
    keys = weights.shape[2]

    assert read.weights.shape == (*weights.shape[:2], min(top_k, keys))
    dense = read.dense()
    assert dense.shape == weights.shape
    if top_k >= keys:
        assert read.key_indices is None
        assert dense is read.weights
        return
    assert read.key_indices is not None
    expected = -np.sort(-weights, axis=2)[..., :top_k]
    places = read.key_indices.astype(np.intp)
    assert np.array_equal(np.take_along_axis(weights, places, 2), expected)
    assert (np.sort(places, axis=2)[..., 1:] > np.sort(places, axis=2)[..., :-1]).all()
    assert np.abs(np.take_along_axis(dense, places, 2).astype(np.float64) - expected).max() <= read.max_error
    assert np.count_nonzero(dense) <= weights.shape[0] * weights.shape[1] * top_k


@pytest.mark.parametrize(("keys", "width"), [(256, 1), (257, 2), (65536, 2), (65537, 4)])
def test_places_take_as_few_bytes_as_the_axis_allows(keys: int, width: int) -> None:
    """The last key of the axis is told from all others."""
    weights = np.zeros((1, 1, keys), np.float32)
    weights[0, 0, -1] = 1

    encoded = encode(weights, Encoding.FLOAT32, 1)

    assert encoded_size((1, 1, keys), Encoding.FLOAT32, 1) == 4 + width
    assert np.frombuffer(encoded.key_indices, f"<u{width}").tolist() == [keys - 1]


def test_a_flat_row_beside_a_peaked_one_keeps_its_weights() -> None:
    """A scale for each row: 512 equal weights of 1/512 still sum to 1 beside a row that is all on one key."""
    weights = np.full((1, 2, 512), 1 / 512, np.float32)
    weights[0, 1] = np.eye(512)[7]

    read = sent_and_read(weights, Encoding.UINT8).weights

    assert np.abs(read.sum(axis=2) - 1).max() < 1e-5
    assert read[0, 1, 7] == pytest.approx(1)


def test_a_map_without_queries_has_no_bytes() -> None:
    """An output that ended at once has rows in no map."""
    read = sent_and_read(np.zeros((2, 0, 3), np.float32), Encoding.UINT8, 1)

    assert read.dense().shape == (2, 0, 3)
    assert read.max_error < 1e-30

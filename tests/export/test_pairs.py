"""Weights of 8 bits that no processor's products saturate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from regard_export.pairs import round_in_pairs
from regard_export.quantization import quantize

MATRICES = arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.floats(-100, 100, width=16))
LARGEST_ACTIVATION = 255


@given(MATRICES)
def test_two_neighbours_fit_into_16_bits(weights: np.ndarray) -> None:
    """Multiplied by the largest activation, and added; the odd one out as well."""
    rounded, scales = round_in_pairs(weights)
    assert rounded.dtype == np.int8
    assert rounded.shape == weights.shape
    assert scales.shape == weights.shape[1:]
    assert (scales > 0).all()
    padded = np.pad(rounded.astype(int), ((0, len(rounded) % 2), (0, 0)))
    for sign in (1, -1):
        of_sign = np.maximum(sign * padded, 0) * LARGEST_ACTIVATION
        assert (of_sign[::2] + of_sign[1::2]).max() <= np.iinfo(np.int16).max


def test_nothing_is_lost_where_no_pair_is_large() -> None:
    """Then it is the rounding of 8 bits; and a column of zeros stays what it is."""
    weights = np.random.default_rng(0).standard_normal((64, 8)).astype(np.float32)
    weights[1::2] = 0
    weights[:, 3] = 0
    rounded, scales = round_in_pairs(weights)
    largest = np.abs(weights).max(axis=0)
    assert np.allclose(scales[largest > 0], largest[largest > 0] / 127)
    assert np.array_equal(rounded, np.rint(weights / scales))


@pytest.mark.parametrize(("spread", "most"), [("normal", 1.4), ("student", 1.2)])
def test_it_is_much_finer_than_7_bits(spread: str, most: float) -> None:
    """Which are twice as coarse as 8; the root of the mean square of what is lost is told in multiples of theirs."""
    random = np.random.default_rng(0)
    shape = (512, 64)
    weights = (random.standard_normal(shape) if spread == "normal" else random.standard_t(4, shape)).astype(np.float32)
    rounded, scales = round_in_pairs(weights)
    of_8_bits = np.abs(weights).max(axis=0) / 127
    lost = np.square(rounded * scales - weights).mean(axis=0)
    lost_with_8_bits = np.square(np.rint(weights / of_8_bits) * of_8_bits - weights).mean(axis=0)
    assert np.sqrt((lost / lost_with_8_bits).mean()) < most


@pytest.mark.parametrize("rows", [1, 2, 7, 64])
@pytest.mark.parametrize("columns", [40, 2500])
def test_products_are_exact_on_any_processor(rows: int, columns: int, tmp_path: Path) -> None:
    """With activations that are rounded to themselves, what a graph gives is what integers give."""
    random = np.random.default_rng(rows)
    weights = np.abs(random.standard_normal((96, columns))).astype(np.float32)
    _save(weights, tmp_path / "graph.onnx")
    quantize(tmp_path / "graph.onnx", "tensor")
    activations = random.integers(200, LARGEST_ACTIVATION + 1, (rows, 96)).astype(np.float32)
    activations[:, :2] = 0, LARGEST_ACTIVATION  # so that their scale is 1
    session = ort.InferenceSession(str(tmp_path / "graph.onnx"), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"activations": activations})
    rounded, scales = round_in_pairs(weights)
    assert np.allclose(found, activations.astype(int) @ rounded.astype(int) * scales, rtol=1e-5)


def _save(weights: np.ndarray, file: Path) -> None:
    """Write a graph that multiplies by a matrix."""
    inner, columns = weights.shape
    helper = onnx.helper
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["activations", "weights"], ["products"])],
        "products",
        [helper.make_tensor_value_info("activations", onnx.TensorProto.FLOAT, ["rows", inner])],
        [helper.make_tensor_value_info("products", onnx.TensorProto.FLOAT, ["rows", columns])],
        [onnx.numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, file, save_as_external_data=True, location=f"{file.name}.data", size_threshold=0)

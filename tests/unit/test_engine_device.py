"""Rows on a device: what is moved by graphs is what arrays would hold; the device here is the CPU itself."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np
import pytest

from regard.config import EngineSettings
from regard.engine.device import DeviceMemory
from regard.engine.memory import Device, DeviceTensor, HostMemory, Memory, Move, Tensor
from regard.engine.rows import Rows
from regard.engine.session import OnnxSession
from regard.errors import OutOfMemoryError
from regard.testing import HEADS, sum_package

CPU = Device("cpu")
SETTINGS = EngineSettings(intra_op_threads=1)


def content(tensor: Tensor) -> np.ndarray:
    """Return what a tensor holds, read where it lies."""
    if isinstance(tensor, np.ndarray):
        return tensor
    size = int(np.prod(tensor.shape)) * tensor.dtype.itemsize
    held = (ctypes.c_byte * size).from_address(tensor.address)
    return np.frombuffer(held, tensor.dtype).reshape(tensor.shape).copy()


def on_device(array: np.ndarray) -> DeviceTensor:
    """Return an array as a tensor of the device that the CPU stands in for."""
    return DeviceTensor(CPU, array.ctypes.data, array.shape, array.dtype, array)


@pytest.fixture(scope="module")
def memory() -> DeviceMemory:
    """Return the memory of that device."""
    return DeviceMemory(lambda graph: OnnxSession(graph, SETTINGS, "cpu", CPU))


@pytest.fixture(params=["float32", "float16"])
def arrays(request: pytest.FixtureRequest) -> list[np.ndarray]:
    """Return two tensors [5, 2, 4, 3], of which the second has other numbers."""
    numbers = np.arange(1, 121, dtype=request.param).reshape(5, 2, 4, 3)
    return [numbers, -numbers]


def alike(memory: DeviceMemory, arrays: Sequence[np.ndarray]) -> list[tuple[Memory, list[Tensor]]]:
    """Return both kinds of memory, each with tensors of its own that hold the same."""
    return [
        (HostMemory(), [array.copy() for array in arrays]),
        (memory, [on_device(array.copy()) for array in arrays]),
    ]


@pytest.mark.parametrize("dtype", ["float", "float16"])
def test_zeros_are_zeros(memory: DeviceMemory, dtype: str) -> None:
    """A new tensor has the shape and the type that the manifest names, and nothing in it."""
    tensor = memory.zeros((3, 2, 4, 5), dtype)

    assert tensor.shape == (3, 2, 4, 5)
    assert content(tensor).dtype == HostMemory().zeros((1,), dtype).dtype
    assert not content(tensor).any()


def test_cleared_entries_are_zero_and_the_others_stay(memory: DeviceMemory, arrays: list[np.ndarray]) -> None:
    """Not even what isn't finite is left of them."""
    arrays[0][2] = np.nan
    (_, expected), (device, got) = pairs = alike(memory, arrays)
    for each, tensors in pairs:
        each.clear(tensors, 1, 2)

    assert device is memory
    np.testing.assert_array_equal([content(one) for one in got], expected)
    assert not content(got[0])[1:3].any()


def test_entries_are_copied_in_one_run(memory: DeviceMemory, arrays: list[np.ndarray]) -> None:
    """A request's rows side by side and single forks arrive whole; where they came from they stay."""
    moves = [Move(3, 0, 2, 4), Move(4, 2, 1, 4)]
    (_, expected), (_, got) = pairs = alike(memory, arrays)
    for each, tensors in pairs:
        each.copy(tensors, moves)

    np.testing.assert_array_equal([content(one) for one in got], expected)


def test_a_state_is_placed_with_zeros_behind_it(memory: DeviceMemory, arrays: list[np.ndarray]) -> None:
    """Of a longer state only the first positions are taken, and nothing of the entry's past is left."""
    states = np.full((2, 3, 2, 6, 3), 7, arrays[0].dtype)
    HostMemory().place(expected := [array.copy() for array in arrays], 4, [states[0][1], states[1][1]], 3, end=4)
    kept = [on_device(state)[1] for state in states]
    memory.place(got := [on_device(array) for array in arrays], 4, kept, 3, end=4)

    np.testing.assert_array_equal([content(one) for one in got], expected)
    assert content(got[0])[4, 0, :, 0].tolist() == [7, 7, 7, 0]


@pytest.mark.parametrize(
    ("axis", "size", "kept", "positions"), [(0, 9, 3, 4), (2, 7, 5, 3), (2, 2, 4, 4), (2, 8, 0, 4), (0, 6, 0, 0)]
)
def test_a_resized_tensor_keeps_what_fits(
    memory: DeviceMemory, arrays: list[np.ndarray], axis: int, size: int, kept: int, positions: int
) -> None:
    """Active entries, and the positions that both sizes have; all else is zero."""
    expected, got = (each.resized(tensors, axis, size, kept, positions) for each, tensors in alike(memory, arrays))

    np.testing.assert_array_equal([content(one) for one in got], [content(one) for one in expected])


def test_cuts_of_a_device_tensor_are_those_of_an_array() -> None:
    """An entry and a run of entries share the memory of the whole."""
    array = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
    tensor = on_device(array)

    assert len(tensor) == 4
    np.testing.assert_array_equal(content(tensor[2]), array[2])
    np.testing.assert_array_equal(content(tensor[1:3]), array[1:3])
    np.testing.assert_array_equal(content(tensor[:9]), array[:9])
    assert tensor[3:3].shape == (0, 2, 3)


def test_what_there_is_no_memory_for_is_told_apart(memory: DeviceMemory) -> None:
    """A tensor that is larger than any memory is refused as too large, whether it is new or has grown."""
    small = on_device(np.ones((2, 1, 1, 1), np.float32))
    with pytest.raises(OutOfMemoryError, match="no memory left for this request; try again later"):
        memory.zeros((1 << 20, 1 << 20, 1 << 18, 1), "float")
    with pytest.raises(OutOfMemoryError, match="no memory left for this request; try again later"):
        memory.resized([small], 2, 1 << 56, kept=1, positions=1)


def test_of_no_tensors_none_are_changed(memory: DeviceMemory) -> None:
    """A model without cross-attention has no such state, and one that is recurrent no cache."""
    for each in (HostMemory(), memory):
        each.clear([], 0, 2)
        each.copy([], [Move(1, 0, 1, 3)])
        each.place([], 0, [], 3, end=4)
        assert each.resized([], 2, 9, kept=3, positions=4) == []


def test_rows_that_begin_with_a_prefill_are_alike_on_both(memory: DeviceMemory) -> None:
    """Two rows each of prompts, one longer than the first block and one empty, come, grow, fork and go."""
    lengths = [5, 40, 1, *range(2, 8)]
    held = []
    for kind, place in ((HostMemory(), np.array), (memory, on_device)):
        rows = Rows(sum_package().manifest, max_rows=18, width=2, memory=kind)
        for length in lengths:
            prompt = np.full((HEADS, length, 1), length, np.float32)
            rows.admit({"past_key.0": place(prompt)}, length, first_token=9, cached=length - 1)
        rows.prepare()
        rows.advance(np.arange(rows.count))
        assert rows.release(0) == 8
        assert rows.row_length[:4].tolist() == [7, 7, 40, 40]
        rows.fork([(1, 0, 1, 40)])
        held.append(content(rows.inputs()["past_key.0"])[2:4, :, :39].copy())
    assert np.array_equal(*held)
    assert np.all(held[0] == 40)

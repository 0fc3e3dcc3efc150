"""Where the tensors of running rows lie, and how their contents are moved there.

On CPUs they are NumPy's arrays. On a device they are `DeviceTensor`s, which only the device's own
`Memory` can change: see `regard.engine.device`. Both are cut along their first dimension without a
copy, which is all that the rows need.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, cast

import numpy as np
import numpy.typing as npt

from regard.errors import OutOfMemoryError

Array = npt.NDArray[Any]


class Device(NamedTuple):
    """A kind of memory, as ONNX Runtime names it, and which of the devices that have it."""

    kind: Literal["cpu", "cuda"]
    number: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class DeviceTensor:
    """A contiguous tensor at an address of a device; `owner` keeps the memory from being freed."""

    device: Device
    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    owner: object

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int | slice) -> DeviceTensor:
        """Return one entry of the first dimension, or some that follow one another, as an array would."""
        if isinstance(index, int):
            return self[index : index + 1].reshaped(self.shape[1:])
        first, last, _ = index.indices(self.shape[0])
        offset = first * math.prod(self.shape[1:]) * self.dtype.itemsize
        shape = (max(0, last - first), *self.shape[1:])
        return DeviceTensor(self.device, self.address + offset, shape, self.dtype, self.owner)

    def reshaped(self, shape: tuple[int, ...]) -> DeviceTensor:
        """Return the same memory in another shape of as many elements."""
        return DeviceTensor(self.device, self.address, shape, self.dtype, self.owner)


Tensor = Array | DeviceTensor


class Move(NamedTuple):
    """Some `entries` from `source` on are copied to `target` and on: their positions [first, last), at least."""

    source: int
    target: int
    entries: int
    last: int
    first: int = 0


class Memory(Protocol):
    """Makes tensors [N, H, P, D] and changes them in place. Several of them, of one N, are changed alike."""

    def zeros(self, shape: Sequence[int], dtype: str) -> Tensor:
        """Return a tensor of zeros; `dtype` is a manifest's, such as "float" or "float16".

        Raises `MemoryError` or `OutOfMemoryError` where there is no room for it, as `resized` does.
        """

    def clear(self, tensors: Sequence[Tensor], first: int, count: int) -> None:
        """Make `count` entries from `first` on zero."""

    def copy(self, tensors: Sequence[Tensor], moves: Sequence[Move]) -> None:
        """Copy entries within each tensor, one move after the other; none is copied from once it was copied to."""

    def place(self, tensors: Sequence[Tensor], index: int, values: Sequence[Tensor], positions: int, end: int) -> None:
        """Write the first `positions` of each value [H, P', D] to entry `index` of its tensor, and zeros behind.

        From `end` on there are zeros already.
        """

    def resized(self, tensors: Sequence[Tensor], axis: int, size: int, kept: int, positions: int) -> list[Tensor]:
        """Return tensors of another size along axis 0 or 2.

        They keep what fits of the first `positions` of the first `kept` entries, and are zero elsewhere.
        """


def prove(memory: Memory) -> None:
    """Make a tensor of one number: after a fault, it raises what is raised by a device that has failed for good."""
    with suppress(MemoryError, OutOfMemoryError):  # others may give some back
        memory.zeros((1, 1, 1, 1), "float")


class HostMemory:
    """The `Memory` of arrays."""

    def zeros(self, shape: Sequence[int], dtype: str) -> Tensor:
        """Return an array of zeros."""
        return np.zeros(shape, numpy_dtype(dtype))

    def clear(self, tensors: Sequence[Tensor], first: int, count: int) -> None:
        """Make `count` entries from `first` on zero."""
        for array in _arrays(tensors):
            array[first : first + count] = 0

    def copy(self, tensors: Sequence[Tensor], moves: Sequence[Move]) -> None:
        """Copy entries within each array, one move after the other."""
        for source, target, entries, last, first in moves:
            for array in _arrays(tensors):
                if entries == 1:  # as forks are: an index is quicker than a slice
                    array[target, :, first:last] = array[source, :, first:last]
                else:
                    array[target : target + entries, :, first:last] = array[source : source + entries, :, first:last]

    def place(self, tensors: Sequence[Tensor], index: int, values: Sequence[Tensor], positions: int, end: int) -> None:
        """Write the first `positions` of each value, and zeros behind them."""
        for array, value in zip(_arrays(tensors), _arrays(values), strict=True):
            array[index, :, :positions] = value[:, :positions]
            array[index, :, positions:end] = 0

    def resized(self, tensors: Sequence[Tensor], axis: int, size: int, kept: int, positions: int) -> list[Tensor]:
        """Return arrays of another size, which take no memory for what is zero."""
        new: list[Tensor] = []
        for old in _arrays(tensors):
            shape = list(old.shape)
            shape[axis] = size
            array = np.zeros(shape, old.dtype)
            fitting = min(positions, old.shape[2], shape[2])
            array[:kept, :, :fitting] = old[:kept, :, :fitting]
            new.append(array)
        return new


def numpy_dtype(dtype: str) -> np.dtype[Any]:
    """Return NumPy's name of a manifest's type."""
    return np.dtype(np.float32 if dtype == "float" else dtype)


def _arrays(tensors: Sequence[Tensor]) -> Sequence[Array]:
    """Say that these are arrays: an engine whose rows are on the host is given nothing else."""
    return cast(Sequence[Array], tensors)

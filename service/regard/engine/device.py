"""Rows on a device: their tensors are moved by tiny graphs that run where they lie.

Nothing but ONNX Runtime is needed for that. A graph's output is bound to the memory of its input,
so that `ScatterND` writes only what changes; see `regard.engine.moves` for the graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from regard.engine import moves
from regard.engine.memory import Array, DeviceTensor, Move, Tensor, numpy_dtype

if TYPE_CHECKING:
    from regard.engine.session import Session

OpenGraph = Callable[[bytes], "Session"]
"""Loads a graph, given as ONNX bytes, onto the device."""


class DeviceMemory:
    """The `Memory` of a device. Several threads may use it, each on tensors of its own."""

    def __init__(self, open_graph: OpenGraph) -> None:
        self._open_graph = open_graph
        self._graphs: dict[tuple[str, str, int], Session] = {}
        self._opening = Lock()

    def zeros(self, shape: Sequence[int], dtype: str) -> Tensor:
        """Return a tensor of zeros, made on the device."""
        graph = self._graph(moves.zeros, numpy_dtype(dtype).name, 1)
        (tensor,), _ = graph.run_keeping({"shape": np.array(shape, np.int64)}, ["made.0"], [])
        return tensor

    def clear(self, tensors: Sequence[Tensor], first: int, count: int) -> None:
        """Make `count` entries from `first` on zero."""
        for tensor in tensors:
            shape = np.array([count, *tensor.shape[1:]], np.int64)
            self._change(moves.clear, [tensor], {"shape": shape, "targets": _column(range(first, first + count))})

    def copy(self, tensors: Sequence[Tensor], moved: Sequence[Move]) -> None:
        """Copy entries within each tensor, whole ones, all of them in one run."""
        if not tensors:
            return
        pairs = [(source + each, target + each) for source, target, entries, *_ in moved for each in range(entries)]
        sources = np.array([source for source, _ in pairs], np.int64)
        self._change(moves.copy, tensors, {"sources": sources, "targets": _column([target for _, target in pairs])})

    def place(self, tensors: Sequence[Tensor], index: int, values: Sequence[Tensor], positions: int, end: int) -> None:
        """Write the first `positions` of each value, and zeros behind them, wherever those end."""
        if not tensors:
            return
        behind = tensors[0].shape[2] - positions
        feeds: dict[str, Tensor] = {
            "ends": np.array([positions], np.int64),
            "pads": np.array([0, 0, 0, 0, 0, 0, behind, 0], np.int64),
            "targets": _column([index]),
        }
        for at, value in enumerate(values):
            assert isinstance(value, DeviceTensor), "the encoder keeps what the rows take"
            feeds[f"value.{at}"] = value.reshaped((1, *value.shape))
        self._change(moves.place, tensors, feeds)

    def resized(self, tensors: Sequence[Tensor], axis: int, size: int, kept: int, positions: int) -> list[Tensor]:
        """Return tensors of another size; the old ones are freed when nothing holds them any more."""
        if not tensors:
            return []
        shapes = [[*tensor.shape[:axis], size, *tensor.shape[axis + 1 :]] for tensor in tensors]
        if not kept:
            return [self.zeros(shape, _name(tensor)) for shape, tensor in zip(shapes, tensors, strict=True)]
        fitting = min(positions, tensors[0].shape[2], shapes[0][2])
        behind = [shapes[0][0] - kept, 0, shapes[0][2] - fitting, 0]
        feeds: dict[str, Tensor] = {
            "ends": np.array([kept, fitting], np.int64),
            "pads": np.array([0, 0, 0, 0, *behind], np.int64),
        }
        graph = self._graph(moves.resize, _name(tensors[0]), len(tensors))
        feeds |= {f"state.{at}": tensor for at, tensor in enumerate(tensors)}
        made, _ = graph.run_keeping(feeds, [f"made.{at}" for at in range(len(tensors))], [])
        return made

    def _change(self, build: moves.Builder, tensors: Sequence[Tensor], feeds: Mapping[str, Tensor]) -> None:
        """Run a graph whose outputs are its inputs' own memory."""
        graph = self._graph(build, _name(tensors[0]), len(tensors))
        states = {f"state.{at}": tensor for at, tensor in enumerate(tensors)}
        changed = {f"changed.{at}": tensor for at, tensor in enumerate(tensors)}
        graph.bind({**states, **feeds}, changed, []).run()

    def _graph(self, build: moves.Builder, dtype: str, count: int) -> Session:
        key = (build.__name__, dtype, count)
        with self._opening:
            if key not in self._graphs:
                self._graphs[key] = self._open_graph(build(dtype, count))
            return self._graphs[key]


def _name(tensor: Tensor) -> str:
    return tensor.dtype.name


def _column(indices: Sequence[int]) -> Array:
    """Return indices into the first dimension as ScatterND takes them, [M, 1]."""
    return np.array(indices, np.int64).reshape(-1, 1)

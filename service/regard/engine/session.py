"""ONNX Runtime: the only place that knows it.

A `Session` runs a graph on arrays. A `Binding` runs it again and again on the same buffers: a
decoding step reads its inputs where the rows keep them and appends to the cache in place.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from regard.config import EngineSettings
from regard.errors import EngineError, PackageError

Array = npt.NDArray[Any]


class Binding(Protocol):
    """A graph tied to buffers: `run` reads and writes them, and returns what it was to fetch."""

    def run(self) -> list[Array]:
        """Run once and return the fetched outputs, in the order in which they were named."""


class Session(Protocol):
    """One graph, ready to run. Several threads may run it at once."""

    @property
    def inputs(self) -> frozenset[str]:
        """The names of the graph's inputs."""

    @property
    def provider(self) -> str:
        """The execution provider that the graph really runs on, as ONNX Runtime names it."""

    def run(self, feeds: Mapping[str, Array], fetches: Sequence[str]) -> list[Array]:
        """Run on `feeds`, of which those that the graph lacks are left out."""

    def bind(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array], fetches: Sequence[str]) -> Binding:
        """Tie the graph to contiguous buffers; an output may be the buffer of an input."""


class OnnxSession:
    """A `Session` of ONNX Runtime."""

    def __init__(self, path: Path, settings: EngineSettings) -> None:
        """Load the graph at `path`.

        Raises `PackageError` if ONNX Runtime can't load it.
        """
        options = ort.SessionOptions()
        options.intra_op_num_threads = settings.intra_op_threads or max(1, _cores() // settings.instances)
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Threads of the pool may spin within a run, but between runs the cores belong to others.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        try:
            self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise PackageError(f"{path.name} can't be loaded by ONNX Runtime; export it again") from error
        self._inputs = frozenset(value.name for value in self._session.get_inputs())

    @property
    def inputs(self) -> frozenset[str]:
        """The names of the graph's inputs."""
        return self._inputs

    @property
    def provider(self) -> str:
        """The execution provider that ONNX Runtime really chose first."""
        return str(self._session.get_providers()[0])

    def run(self, feeds: Mapping[str, Array], fetches: Sequence[str]) -> list[Array]:
        """Run on `feeds`, of which those that the graph lacks are left out."""
        known = {name: array for name, array in feeds.items() if name in self._inputs}
        try:
            outputs: list[Array] = self._session.run(list(fetches), known)
        except Exception as error:
            raise EngineError("the model failed on this input") from error
        return outputs

    def bind(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array], fetches: Sequence[str]) -> Binding:
        """Tie the graph to contiguous buffers; an output may be the buffer of an input."""
        known = {name: array for name, array in inputs.items() if name in self._inputs}
        return _OnnxBinding(self._session, known, outputs, fetches)


class _OnnxBinding:
    def __init__(
        self,
        session: ort.InferenceSession,
        inputs: Mapping[str, Array],
        outputs: Mapping[str, Array],
        fetches: Sequence[str],
    ) -> None:
        self._session = session
        self._buffers = (inputs, outputs)  # ONNX Runtime holds bare pointers: keep what they point to
        self._fetches = fetches
        self._bound = len(outputs)
        self._binding = session.io_binding()
        for name, array in inputs.items():
            self._binding.bind_input(name, "cpu", 0, array.dtype, array.shape, _address(array))
        for name, array in outputs.items():
            self._binding.bind_output(name, "cpu", 0, array.dtype, array.shape, _address(array))
        for name in fetches:
            self._binding.bind_output(name)

    def run(self) -> list[Array]:
        for name in self._fetches:  # their shapes change from run to run: ask for new ones
            self._binding.bind_output(name)
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:
            raise EngineError("the model failed on the running batch") from error
        if not self._fetches:
            return []
        return [value.numpy() for value in self._binding.get_outputs()[self._bound :]]


def _address(array: Array) -> int:
    if not array.flags.c_contiguous:
        raise ValueError("only a contiguous array can be bound")
    return int(array.__array_interface__["data"][0])


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def zeros(shape: Sequence[int], dtype: str) -> Array:
    """Return a buffer for a tensor that a manifest describes, such as "float" or "int64"."""
    return np.zeros(shape, np.float32 if dtype == "float" else np.dtype(dtype))

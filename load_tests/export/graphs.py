"""Running a graph again and again, with its inputs bound once: the same way for everybody."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

Feeds = dict[str, npt.NDArray[Any]]
Run = Callable[[], object]
THREADS = 2


def session(file: Path, options: ort.SessionOptions | None = None) -> ort.InferenceSession:
    """Load a graph on the CPU, as ONNX Runtime does by itself or with other `options`."""
    options = options or ort.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.log_severity_level = 3
    return ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def run_of(
    loaded: ort.InferenceSession, feeds: Feeds, outputs: Sequence[str], in_place: Mapping[str, str] | None = None
) -> Run:
    """Return a function that runs a graph for `outputs`, and for those that `in_place` names by their inputs.

    Feeds that the graph lacks are left out.
    """
    binding, known = loaded.io_binding(), {value.name for value in loaded.get_inputs()}
    for name in feeds.keys() & known:
        value = ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(feeds[name]))
        binding.bind_ortvalue_input(name, value)
        if in_place and name in in_place:
            binding.bind_ortvalue_output(in_place[name], value)
    for name in outputs:
        binding.bind_output(name)
    return lambda: loaded.run_with_iobinding(binding)


def names_of(loaded: ort.InferenceSession) -> list[str]:
    """Return the names of a graph's outputs."""
    return [value.name for value in loaded.get_outputs()]

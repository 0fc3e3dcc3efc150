"""Running graphs as the proofs do, without the engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from regard.manifest import GenerationSpec

DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
SAMPLE_TOKENS = 12
GARBAGE = 7.0

Array = npt.NDArray[Any]
Feeds = dict[str, Array]


LARGE_BYTES = 1 << 29


def session_options() -> ort.SessionOptions:
    """Return what the service's sessions on CPUs have, too: residual connections stay apart from their norms."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("optimization.disable_specified_optimizers", "SkipLayerNormFusion")
    return options


def open_session(path: Path) -> ort.InferenceSession:
    """Load a graph as the proof runs it: a large package's without a second, packed copy of its weights."""
    options = session_options()
    if sum(file.stat().st_size for file in path.parent.glob("*.data")) > LARGE_BYTES:
        options.add_session_config_entry("session.disable_prepacking", "1")
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run(session: ort.InferenceSession, feeds: Feeds) -> dict[str, Array]:
    """Return every output; feeds that the graph lacks are left out.

    It intervenes in nothing but what they say, and no row asks that they don't say asks.
    """
    first = next(iter(feeds.values()))
    feeds = open_gates(session, len(first), first.shape[1]) | feeds
    known = {value.name for value in session.get_inputs()}
    feeds = {name: np.zeros(0, np.int64) for name in known if name.endswith("_rows")} | feeds
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(None, {k: v for k, v in feeds.items() if k in known}), strict=True))


def open_gates(session: ort.InferenceSession, rows: int, positions: int) -> Feeds:
    """Return what intervenes in nothing, for a graph that takes interventions and a source of `positions`."""
    sizes = {"R": rows, "N": rows, "S": positions, "B": 1}
    feeds: Feeds = {}
    for value in session.get_inputs():
        shape = [sizes.get(size, size) for size in value.shape]
        if value.name.endswith("_head_gate"):
            feeds[value.name] = np.ones(shape, np.float32)
        elif value.name.endswith(("_bias", "_bias_index")):
            feeds[value.name] = np.zeros(shape, np.float32 if value.type == "tensor(float)" else np.int64)
    return feeds


def greedy(logits: Array, spec: GenerationSpec, at: int, steps: int) -> Array:
    """Return the tokens [N] that greedy search takes at the position `at` of `steps`."""
    if at == 0 and spec.forced_bos_token_id is not None:
        return np.full(len(logits), spec.forced_bos_token_id)
    if at == steps - 1 and spec.forced_eos_token_id is not None:
        return np.full(len(logits), spec.forced_eos_token_id)
    allowed = logits.copy()
    allowed[:, list(spec.suppressed_token_ids)] = -np.inf
    chosen: Array = allowed.argmax(-1)
    return chosen


class Stepper:
    """Runs the step graph with its cache bound in place."""

    def __init__(self, session: ort.InferenceSession, rows: int, lengths: Array, cross: Feeds, before: int = 0) -> None:
        """Make room for `before` positions and the samples' tokens behind them."""
        self._session = session
        self._names = [value.name for value in session.get_outputs()]
        self._inputs = {value.name: value for value in session.get_inputs()}
        self._rows = rows
        positions = before + 2 * SAMPLE_TOKENS + 4
        self._fixed: Feeds = {
            "source_length": lengths,
            "num_candidates": np.array([4]),
            "scored": np.array([True]),
            **cross,
        }
        sources = [state.shape[2] for name, state in cross.items() if name.startswith("cross_key.")]
        self._fixed = open_gates(session, rows, max(sources, default=0)) | self._fixed
        self._asking = [name for name in self._inputs if name.endswith("_rows")]
        self._cache = {
            name: ort.OrtValue.ortvalue_from_numpy(
                np.full((rows, value.shape[1], positions, value.shape[3]), GARBAGE, DTYPES[value.type])
            )
            for name, value in self._inputs.items()
            if name.startswith("past_")
        }

    def begin(self, row: int, state: Feeds, positions: int) -> None:
        """Put the first `positions` of each state [H, S, D] into a row's cache."""
        for name, value in state.items():
            self._cache[name].numpy()[row, :, :positions] = value[:, :positions]

    def step(self, tokens: Array, position: Array, asking: Array) -> dict[str, Array]:
        """Feed every row its token [N] at its position [N]; return what the graph gives beside the cache.

        The rows `asking` [A], ascending, get every tap.
        """
        feeds = self._fixed | {
            "token_ids": tokens.reshape(self._rows, 1),
            "row_length": position,
            "total_length": np.array(position.max() + 1, np.int32),
            **dict.fromkeys(self._asking, asking),
        }
        binding = self._session.io_binding()
        for name in self._inputs.keys() - self._cache.keys():
            binding.bind_cpu_input(name, np.ascontiguousarray(feeds[name]))
        for name, value in self._cache.items():
            binding.bind_ortvalue_input(name, value)
            binding.bind_ortvalue_output(name.replace("past_", "present_"), value)
        rest = [name for name in self._names if not name.startswith("present_")]
        for name in rest:
            binding.bind_output(name)
        self._session.run_with_iobinding(binding)
        bound = [name.replace("past_", "present_") for name in self._cache] + rest
        outputs = dict(zip(bound, binding.get_outputs(), strict=True))
        return {name: outputs[name].numpy() for name in rest}

"""Attention weights of a decoding step come from the operators that attend, for those who ask."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest

from regard.manifest import Package, load_package
from regard_export.package import Options, export
from regard_export.stepping import GARBAGE, session_options

from .checkpoints import save_translator

LAYERS, POSITIONS = 2, 9
LENGTHS, SOURCES = np.array([0, 5, 3, 1], np.int32), np.array([6, 1, 4, 2], np.int32)
MAPS = [f"{kind}_attention.{layer}" for kind in ("self", "cross") for layer in range(LAYERS)]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    """The package of a random Marian of two layers."""
    checkpoint = save_translator(tmp_path_factory.mktemp("checkpoint") / "tiny")
    return load_package(export(checkpoint, tmp_path_factory.mktemp("models"), Options(name="tiny")))


class Step:
    """One step of four rows, each at its own position, of as many requests or of two."""

    def __init__(self, package: Package, requests: int, options: ort.SessionOptions | None = None) -> None:
        self.session = ort.InferenceSession(str(package.path("step.onnx")), options or session_options())
        self._sizes = {"N": len(LENGTHS), "R": requests, "P": POSITIONS, "S": int(SOURCES[:requests].max())}
        self._requests = requests

    def run(self, self_rows: list[int], cross_rows: list[int]) -> dict[str, npt.NDArray[Any]]:
        """Return the weights, the logits, and the cache, which is written where it was read."""
        random, binding = np.random.default_rng(0), self.session.io_binding()
        given: dict[str, npt.NDArray[Any]] = {
            "token_ids": np.array([[5], [9], [30], [7]]),
            "row_length": LENGTHS,
            "total_length": np.array(LENGTHS.max() + 1, np.int32),
            "source_length": SOURCES[: self._requests],
            "num_candidates": np.array([2]),
            "self_tap_rows": np.array(self_rows, np.int64),
            "cross_tap_rows": np.array(cross_rows, np.int64),
        }
        states: dict[str, ort.OrtValue] = {}
        for value in self.session.get_inputs():
            if value.name in given:
                binding.bind_cpu_input(value.name, given[value.name])
                continue
            state = random.standard_normal([self._sizes.get(size, size) for size in value.shape]).astype(np.float32)
            if value.name.startswith("past_"):
                for row, length in enumerate(LENGTHS):
                    state[row, :, length:] = GARBAGE
            states[value.name] = bound = ort.OrtValue.ortvalue_from_numpy(state)
            binding.bind_ortvalue_input(value.name, bound)
            if value.name.startswith("past_"):
                binding.bind_ortvalue_output(value.name.replace("past_", "present_"), bound)
        names = ["logits", *MAPS]
        for name in names:
            binding.bind_output(name)
        self.session.run_with_iobinding(binding)
        found = dict(zip(names, binding.get_outputs()[-len(names) :], strict=True))
        cache = {name: value for name, value in states.items() if name.startswith("past_")}
        return {name: value.numpy().copy() for name, value in (found | cache).items()}


def attentions_run(package: Package, requests: int, asking: tuple[list[int], list[int]], scratch: Path) -> list[str]:
    """Return what attended, as ONNX Runtime's own profile saw it, and whether it gave weights."""
    options = session_options()
    options.enable_profiling = True
    options.profile_file_prefix = str(scratch / "profile")
    step = Step(package, requests, options)
    step.run(*asking)
    events = [event["args"] for event in json.loads(Path(step.session.end_profiling()).read_text()) if "args" in event]
    return [
        f"{event['op_name']}{' with weights' if _gives_weights(event) else ''}"
        for event in events
        if event.get("op_name", "").endswith("Attention") and "output_type_shape" in event
    ]


def _gives_weights(event: dict[str, Any]) -> bool:
    """Tell whether the last output of an attention is of four dimensions and not of a cache."""
    *_, last = event["output_type_shape"]
    (shape,) = last.values()
    return len(shape) == 4 and shape[2] == 1


GROUPED, WEIGHED = "GroupQueryAttention", "GroupQueryAttention with weights"


@pytest.mark.parametrize(
    ("asking", "ran"),
    [
        (([], []), {GROUPED: 4, WEIGHED: 0}),
        (([2], []), {GROUPED: 2, WEIGHED: 2}),
        (([], [0, 1, 2, 3]), {GROUPED: 2, WEIGHED: 2}),
        (([0, 1, 2, 3], [1, 3]), {GROUPED: 0, WEIGHED: 4}),
    ],
    ids=["nobody", "some of themselves", "all of the source", "all and some"],
)
def test_every_layer_attends_once_whoever_asks(
    package: Package, asking: tuple[list[int], list[int]], ran: dict[str, int], tmp_path: Path
) -> None:
    """With as many requests as rows, one operator attends to both, and gives weights where they are asked for."""
    seen = attentions_run(package, 4, asking, tmp_path)
    assert {name: seen.count(name) for name in ran} == ran
    assert len(seen) == 2 * LAYERS


@pytest.mark.parametrize("requests", [4, 2])
def test_weights_are_the_same_whoever_else_asks(package: Package, requests: int) -> None:
    """Nor does what the step gives depend on who asks, nor what it leaves in the cache."""
    step = Step(package, requests)
    whole, plain = step.run([0, 1, 2, 3], [0, 1, 2, 3]), step.run([], [])
    for rows, others in (([1], []), ([0, 3], [1, 2, 3]), ([], [2]), ([0, 1, 2, 3], [0])):
        some = step.run(rows, others)
        for name in MAPS:
            asking = rows if name.startswith("self") else others
            assert np.allclose(some[name].ravel(), whole[name][asking].ravel(), rtol=0, atol=1e-6)
        for name in some.keys() - set(MAPS):
            assert np.allclose(some[name], whole[name], rtol=0, atol=1e-5)
            assert np.allclose(some[name], plain[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize("requests", [4, 2])
def test_weights_are_of_a_rows_own_keys(package: Package, requests: int) -> None:
    """They sum to 1, and are 0 beyond what the row has written, and beyond its source."""
    got = Step(package, requests).run([0, 1, 2, 3], [0, 1, 2, 3])
    sources = np.repeat(SOURCES[:requests], len(LENGTHS) // requests)
    for layer in range(LAYERS):
        for name, lengths in ((f"self_attention.{layer}", LENGTHS + 1), (f"cross_attention.{layer}", sources)):
            for weights, length in zip(got[name], lengths, strict=True):
                assert np.allclose(weights[:, :, :length].sum(-1), 1, atol=1e-6)
                assert (weights[:, :, length:] == 0).all()


def test_a_step_writes_its_cache_where_it_was_read(package: Package) -> None:
    """Each row's next position holds its new key, and all behind it what it held before."""
    for asking in ([], [1], [0, 1, 2, 3]):
        got = Step(package, 4).run(asking, [])
        for name in (f"past_{half}.{layer}" for half in ("key", "value") for layer in range(LAYERS)):
            for state, length in zip(got[name], LENGTHS, strict=True):
                assert not (state[:, length] == GARBAGE).any()
                assert (state[:, length + 1 :] == GARBAGE).all()

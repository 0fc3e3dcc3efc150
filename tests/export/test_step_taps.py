"""Attention weights of a decoding step come from the operators that attend, for those who ask."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
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
            "scored": np.array([True]),
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


def operators_run(package: Package, requests: int, asking: tuple[list[int], list[int]], scratch: Path) -> list[str]:
    """Return the operators that ONNX Runtime's own profile saw running."""
    options = session_options()
    options.enable_profiling = True
    options.profile_file_prefix = str(scratch / "profile")
    step = Step(package, requests, options)
    step.run(*asking)
    events = [event["args"] for event in json.loads(Path(step.session.end_profiling()).read_text()) if "args" in event]
    return [event["op_name"] for event in events if "output_type_shape" in event]


@pytest.mark.parametrize(
    ("asking", "picked"),
    [(([], []), 0), (([2], []), 2), (([], [0, 1, 2, 3]), 2), (([0, 1, 2, 3], [1, 3]), 4)],
    ids=["nobody", "some of themselves", "all of the source", "all and some"],
)
def test_every_layer_attends_once_whoever_asks(
    package: Package, asking: tuple[list[int], list[int]], picked: int, tmp_path: Path
) -> None:
    """With as many requests as rows, one operator attends to both, and its weights are picked out for those who ask."""
    ran = operators_run(package, 4, asking, tmp_path)
    assert [name for name in ran if name.endswith("Attention")] == ["GroupQueryAttention"] * 2 * LAYERS
    assert ran.count("Where") == picked


@pytest.mark.parametrize(
    ("asking", "weighed"), [(([0], []), 0), (([], [3]), 2)], ids=["of themselves", "of the source"]
)
def test_hypotheses_of_a_request_attend_to_its_source_together(
    package: Package, asking: tuple[list[int], list[int]], weighed: int, tmp_path: Path
) -> None:
    """The operator that gives weights runs only if somebody asks for them."""
    ran = operators_run(package, 2, asking, tmp_path)
    assert ran.count("Attention") == weighed
    assert ran.count("MultiHeadAttention") == LAYERS - weighed
    assert ran.count("GroupQueryAttention") == LAYERS


def test_no_scores_are_scaled(package: Package) -> None:
    """What makes queries has taken in the scale, so that their products with keys are the fast ones."""
    graph = onnx.load(package.path("step.onnx"), load_external_data=False).graph
    nodes = [node for node in graph.node if node.op_type == "GroupQueryAttention"]
    assert len(nodes) == LAYERS
    for node in nodes:
        assert {attribute.name: attribute.f for attribute in node.attribute}["scale"] == 1
    scaled = {tensor.name for tensor in graph.initializer if tensor.name.endswith(".scaled_weight")}
    assert sum(node.op_type == "MatMul" and node.input[1] in scaled for node in graph.node) == 2 * LAYERS


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

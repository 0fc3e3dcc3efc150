"""Attention weights are computed for those who ask, and for nobody else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from regard.manifest import Package, load_package
from regard_export.package import Options, export

from .checkpoints import save_classifier


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    """The package of a random BERT of two layers."""
    checkpoint = save_classifier(tmp_path_factory.mktemp("checkpoint") / "tiny")
    return load_package(export(checkpoint, tmp_path_factory.mktemp("models"), Options(name="tiny")))


def operators_run(package: Package, rows: list[int], scratch: Path) -> list[str]:
    """Return the operators that ONNX Runtime's own profile saw running, in order."""
    options = ort.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(scratch / "profile")
    session = ort.InferenceSession(str(package.path("classifier.onnx")), options)
    feeds = {
        "input_ids": np.full((2, 6), 7, np.int64),
        "source_length": np.array([6, 4], np.int32),
        "self_tap_rows": np.array(rows, np.int64),
    }
    session.run(["logits"], feeds)
    events = json.loads(Path(session.end_profiling()).read_text())
    return [event["args"]["op_name"] for event in events if event.get("cat") == "Node"]


def test_no_softmax_of_weights_runs_unless_a_row_asks(package: Package, tmp_path: Path) -> None:
    """The profile of a run without asking rows has no Softmax; with one it has one for each layer."""
    assert "Softmax" not in operators_run(package, [], tmp_path)
    assert operators_run(package, [1], tmp_path).count("Softmax") == 2


def test_the_fused_operators_give_no_scores(package: Package) -> None:
    """No attention node has its scores connected, which would make it write them for every row."""
    graph = onnx.load(package.path("classifier.onnx"), load_external_data=False).graph
    fused = [node for node in graph.node if node.op_type == "MultiHeadAttention"]
    assert [len(node.output) for node in fused] == [1, 1]


def test_only_the_asking_rows_are_gathered(package: Package) -> None:
    """Weights come in the order of the rows asked for, one map each, and a row may be asked for twice."""
    session = ort.InferenceSession(str(package.path("classifier.onnx")))
    random = np.random.default_rng(0)
    feeds = {"input_ids": random.integers(2, 100, (3, 6)), "source_length": np.array([6, 4, 1], np.int32)}
    everything = session.run(["self_attention.0"], feeds | {"self_tap_rows": np.array([0, 1, 2])})[0]
    chosen = session.run(["self_attention.0"], feeds | {"self_tap_rows": np.array([2, 0, 2])})[0]
    assert np.array_equal(chosen, everything[[2, 0, 2]])
    assert np.allclose(everything.sum(-1), 1, atol=1e-6)
    assert (everything[1, :, :, 4:] == 0).all()

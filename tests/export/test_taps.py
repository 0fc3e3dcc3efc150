"""Attention weights are computed for those who ask, and for nobody else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from regard.manifest import Package, load_package
from regard_export.package import Options, export
from regard_export.stepping import open_session, run

from .checkpoints import save_classifier

ROWS = ("self_tap_rows", "self_mean_rows", "self_max_rows")
FEEDS = {
    "input_ids": np.random.default_rng(0).integers(2, 100, (3, 6)),
    "source_length": np.array([6, 4, 1], np.int32),
}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    """The package of a random BERT of two layers."""
    checkpoint = save_classifier(tmp_path_factory.mktemp("checkpoint") / "tiny")
    return load_package(export(checkpoint, tmp_path_factory.mktemp("models"), Options(name="tiny")))


def operators_run(package: Package, asking: dict[str, list[int]], scratch: Path) -> list[tuple[str, int]]:
    """Return the operators that ONNX Runtime's own profile saw running, and how many outputs each gave."""
    options = ort.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(scratch / "profile")
    session = ort.InferenceSession(str(package.path("classifier.onnx")), options)
    feeds = {
        "input_ids": np.full((2, 6), 7, np.int64),
        "source_length": np.array([6, 4], np.int32),
    }
    feeds |= {name: np.array(asking.get(name, []), np.int64) for name in ROWS}
    session.run(["logits"], feeds)
    events = [event["args"] for event in json.loads(Path(session.end_profiling()).read_text()) if "args" in event]
    return [(event["op_name"], len(event["output_type_shape"])) for event in events if "output_type_shape" in event]


PLAIN, WEIGHED = ("Attention", 1), ("Attention", 2)


def test_no_weight_is_made_unless_a_row_asks(package: Package, tmp_path: Path) -> None:
    """The profile of a run without asking rows has attention without weights, and nothing that gathers or reduces."""
    ran = operators_run(package, {}, tmp_path)
    assert ran.count(PLAIN) == 2
    assert WEIGHED not in ran
    assert not {"Softmax", "ReduceMean", "ReduceMax"} & {operator for operator, _ in ran}


@pytest.mark.parametrize("rows", [[1], [0, 1]], ids=["some", "all"])
@pytest.mark.parametrize("name", ROWS)
def test_weights_come_with_the_output(package: Package, tmp_path: Path, name: str, rows: list[int]) -> None:
    """Attention runs once a layer, whoever asks, and the answer stays the same."""
    ran = operators_run(package, {name: rows}, tmp_path)
    assert ran.count(WEIGHED) == 2
    assert PLAIN not in ran
    assert "Softmax" not in {operator for operator, _ in ran}
    session = open_session(package.path("classifier.onnx"))
    asking, nobody = (run(session, FEEDS | {name: np.array(some, np.int64)})["logits"] for some in (rows, []))
    assert np.allclose(asking, nobody, atol=1e-6)


def test_no_size_of_a_map_is_taken_for_zero(package: Package) -> None:
    """ONNX' inference says so of the weights that `Attention` gives, and whoever binds an output is refused."""
    outputs = open_session(package.path("classifier.onnx")).get_outputs()
    assert len(outputs) == 7
    assert not [output.name for output in outputs if 0 in output.shape]


def test_only_the_asking_rows_are_gathered(package: Package) -> None:
    """Weights come in the order of the rows asked for, one map each."""
    session = open_session(package.path("classifier.onnx"))
    everything = run(session, FEEDS | {"self_tap_rows": np.array([0, 1, 2])})["self_attention.0"]
    chosen = run(session, FEEDS | {"self_tap_rows": np.array([0, 2])})["self_attention.0"]
    assert np.allclose(chosen, everything[[0, 2]], atol=1e-7)
    assert np.allclose(everything.sum(-1), 1, atol=1e-6)
    assert (everything[1, :, :, 4:] == 0).all()


def test_all_rows_may_ask_for_one_thing_and_some_for_another(package: Package) -> None:
    """What each tap gives is the same whoever else asks for what."""
    session = open_session(package.path("classifier.onnx"))
    heads = run(session, FEEDS | {"self_tap_rows": np.arange(3)})["self_attention.1"]
    for name, output, whole in (
        ("self_tap_rows", "self_attention.1", heads),
        ("self_mean_rows", "self_mean.1", heads.mean(1, keepdims=True)),
        ("self_max_rows", "self_max.1", heads.max(1, keepdims=True)),
    ):
        for rows in ([], [1], [0, 2], [0, 1, 2]):
            for others in ([], [2], [0, 1, 2]):
                feeds = FEEDS | {other: np.array(others, np.int64) for other in ROWS} | {name: np.array(rows, np.int64)}
                assert np.allclose(run(session, feeds)[output].ravel(), whole[rows].ravel(), atol=1e-6)


def test_heads_are_put_together_before_they_leave_the_graph(package: Package) -> None:
    """Rows may ask for heads, for their mean and for their maximum, each for rows of its own, in one run."""
    asking = {"self_tap_rows": np.arange(3), "self_mean_rows": np.array([0, 2]), "self_max_rows": np.array([1])}
    got = run(open_session(package.path("classifier.onnx")), FEEDS | asking)
    for layer in range(2):
        heads = got[f"self_attention.{layer}"]
        assert np.allclose(got[f"self_mean.{layer}"], heads[[0, 2]].mean(1, keepdims=True), atol=1e-7)
        assert np.array_equal(got[f"self_max.{layer}"], heads[[1]].max(1, keepdims=True))


def test_the_manifest_says_what_is_put_together_in_the_graph(package: Package) -> None:
    """Mean and maximum of every layer are taps of their own, which the proof compares with the eager model's."""
    reduced = package.manifest.reduced_taps
    assert [tap.name for tap in reduced] == [
        f"encoder.self.{layer}.{word}" for word in ("mean", "max") for layer in (0, 1)
    ]
    assert {tap.rows_input for tap in reduced} == set(ROWS[1:])
    proven = json.loads(package.path("parity.json").read_text())["max_abs_difference"]
    assert {tap.name for tap in (*package.manifest.taps, *reduced)} < proven.keys()

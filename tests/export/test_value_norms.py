"""Weights times norms: computed for those who ask, for nobody else, and proven."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from regard.manifest import Package, load_package
from regard_export.errors import ExportError, ParityError
from regard_export.package import Options, export
from regard_export.passes import value_norms

from ..conftest import Intervenable  # noqa: TID252 - tests are no package of sys.path
from .checkpoints import save_classifier, save_completer, save_image_classifier

FEEDS = {
    "input_ids": np.full((3, 6), 7, np.int64),
    "source_length": np.array([6, 4, 1], np.int32),
}


def package_of(intervenable: Intervenable, name: str) -> Package:
    """Return the package of a random model that tells norms."""
    return load_package(intervenable.models / name / "1")


def norms_run(package: Package, asking: dict[str, list[int]], scratch: Path) -> int:
    """Return how many norms ONNX Runtime's own profile saw computed when rows ask for something."""
    options = ort.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(scratch / "profile")
    session = ort.InferenceSession(str(package.path("classifier.onnx")), options)
    rows = {value.name: np.array(asking.get(value.name, []), np.int64) for value in session.get_inputs()}
    session.run(["logits"], {name: one for name, one in rows.items() if name.endswith("_rows")} | FEEDS)
    events = json.loads(Path(session.end_profiling()).read_text())
    return sum(event["args"]["op_name"] == "ReduceL2" for event in events if event.get("cat") == "Node")


def test_no_norm_is_computed_unless_a_row_asks(intervenable: Intervenable, tmp_path: Path) -> None:
    """Not even where rows ask for weights; where one asks for norms, one a layer is."""
    package = package_of(intervenable, "sorter")
    assert norms_run(package, {"self_tap_rows": [0, 1, 2]}, tmp_path) == 0
    assert norms_run(package, {"self_norm_rows": [1]}, tmp_path) == 2


def test_rows_are_gathered_in_the_order_asked_for(intervenable: Intervenable) -> None:
    """Some rows get what they get among all; keys behind a row's length have 0."""
    session = ort.InferenceSession(str(package_of(intervenable, "sorter").path("classifier.onnx")))
    nobody = {value.name: np.array([], np.int64) for value in session.get_inputs() if value.name.endswith("_rows")}

    def norms(rows: list[int]) -> np.ndarray:
        (found,) = session.run(["self_norm.1"], nobody | FEEDS | {"self_norm_rows": np.array(rows, np.int64)})
        return found

    everything = norms([0, 1, 2])
    np.testing.assert_allclose(norms([0, 2]), everything[[0, 2]], atol=1e-6)
    assert norms([]).shape[0] == 0
    assert (everything[1, :, :, 4:] == 0).all() and (everything[1, :, :, :4] > 0).any()


def test_the_manifest_names_a_tap_for_every_layer_and_the_proof_compares_them(intervenable: Intervenable) -> None:
    """Also where interventions change the weights; what multiplies values is small, and shared with that graph."""
    for name in ("sorter", "looker", "translator"):
        package = package_of(intervenable, name)
        taps, norms = package.manifest.taps, package.manifest.norm_taps
        assert [tap.name for tap in norms] == [f"{tap.name}.value_norm" for tap in taps]
        proven = json.loads(package.path("parity.json").read_text())["max_abs_difference"]
        for tap in norms:
            assert {tap.name, f"intervened.{tap.name}"} <= proven.keys()
        for graph in {tap.graph for tap in norms}:
            spec = package.manifest.graphs[graph]
            for file in (spec.file, package.manifest.graphs[spec.intervened_graph or ""].file):
                weights = ir.load(package.path(file)).graph.initializers
                factors = [one.const_value for key, one in weights.items() if key.endswith(".factors")]
                assert len(factors) == sum(tap.graph == graph for tap in norms)
                assert {one.shape.numpy() for one in factors if one is not None} == {(4, 8, 8)}


def test_a_factor_keeps_the_length_of_every_product() -> None:
    """Of wide matrices, narrow ones, and one whose head gives nothing."""
    random = np.random.default_rng(0)
    for heads, size, width in ((3, 8, 24), (2, 8, 4), (1, 1, 1)):
        matrix = random.normal(size=(heads * size, width))
        matrix[:size] *= 0 if heads == 3 else 1
        values = random.normal(size=(heads, 5, size))
        factors = value_norms._factors(matrix, heads)
        assert factors.shape == (heads, size, min(size, width))
        products = values @ matrix.reshape(heads, size, width)
        np.testing.assert_allclose(
            np.linalg.norm(values @ factors, axis=-1), np.linalg.norm(products, axis=-1), atol=1e-12
        )


def test_the_proof_notices_a_wrong_norm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a head's factor in another's place there is no package."""
    right = value_norms._factors
    monkeypatch.setattr(value_norms, "_factors", lambda matrix, heads: right(matrix, heads)[::-1])
    checkpoint = save_classifier(tmp_path / "tiny")
    with pytest.raises(ParityError, match="value_norm differs from the eager model"):
        export(checkpoint, tmp_path / "models", Options(name="tiny", value_norms=True))
    assert not (tmp_path / "models" / "tiny").exists()


def test_where_taps_are_apart_the_plain_graph_knows_nothing_of_norms(tmp_path: Path) -> None:
    """It has neither the rows nor the factors; the graph with the taps has both."""
    checkpoint = save_classifier(tmp_path / "tiny")
    options = Options(name="tiny", target="tensorrt", precision="fp16", value_norms=True)
    package = load_package(export(checkpoint, tmp_path / "models", options))
    graphs = package.manifest.graphs
    for name, inputs, factors in (("classifier", set(), 0), ("classifier_with_taps", {"self_norm_rows"}, 2)):
        assert {tensor.name for tensor in graphs[name].inputs if "norm" in tensor.name} == inputs
        weights = ir.load(package.path(graphs[name].file)).graph.initializers
        assert sum(weight.endswith(".factors") for weight in weights) == factors


def test_what_has_no_norms_is_refused_by_name(tmp_path: Path) -> None:
    """A completion model by its task; layers within windows by what they lack."""
    for save, problem in (
        (save_completer, "takes no value norms"),
        (lambda at: save_image_classifier(at, "Swin", depths=[1], num_heads=[2]), "none of its layers has attention"),
    ):
        with pytest.raises(ExportError, match=problem) as refused:
            export(save(tmp_path / problem), tmp_path / "models", Options(name="tiny", value_norms=True))
        assert "leave --value-norms out" in str(refused.value)

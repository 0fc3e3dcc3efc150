"""Steps of CPUs find the logarithm of the softmax' denominator for whoever is told scores, and for nobody else."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from regard.config import EngineSettings
from regard.loading import open_session
from regard.manifest import Package, load_package
from regard_export import alone as twins
from regard_export.package import Options, export
from regard_export.screening import screen

from .checkpoints import save_completer, save_translator

SIZES = {"N": 3, "R": 3, "P": 8, "S": 5, "K": 4}
NUMBERS = {"row_length": 3, "total_length": 4, "source_length": 5, "token_ids": 7, "num_candidates": 4}
OUTPUTS = ["candidate_ids", "candidate_scores", "log_sum_exp", "logits"]

Array = npt.NDArray[np.generic]


@pytest.fixture(scope="module", params=[(save_translator, "fp32"), (save_translator, "int8"), (save_completer, "fp32")])
def package(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Package:
    """Return a package of a small model; of the one in int8, a row that is alone screens."""
    save, precision = request.param
    directory = tmp_path_factory.mktemp("scored")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(twins, "screen", functools.partial(screen, least=0))
        return _export(save, directory, Options(name="model", precision=precision))


def test_a_step_leaves_out_what_nobody_is_told(package: Package) -> None:
    """All else is the same to the bit, the cache included; scored, it is what the logits say."""
    graphs = [name for name in ("step", "step_alone") if name in package.manifest.graphs]
    assert len(graphs) == (2 if package.manifest.precision == "int8" else 1)
    for name in graphs:
        rows = SIZES | ({"N": 1, "R": 1} if name == "step_alone" else {})
        told, untold = (_run(package, name, rows, scored=scored) for scored in (True, False))
        logits = told["logits"].astype(np.float64)
        expected = np.log(np.exp(logits).sum(axis=1, keepdims=True))
        np.testing.assert_allclose(told.pop("log_sum_exp"), expected, atol=1e-5)
        assert not untold.pop("log_sum_exp").any()
        assert told.keys() == untold.keys() >= {"candidate_ids", "candidate_scores", "logits", "present_key.0"}
        assert all(np.array_equal(told[output], untold[output]) for output in told)


def test_nothing_is_exponentiated_outside_the_branch(package: Package) -> None:
    """The softmax over the vocabulary is in the branch of those who are told scores, and nowhere else."""
    graph = package.manifest.graphs["step"]
    model = onnx.load(str(package.path(graph.file)), load_external_data=False)
    assert "Softmax" not in [node.op_type for node in model.graph.node]
    (choice,) = (node for node in model.graph.node if "log_sum_exp" in node.output)
    branches = {attribute.name: [node.op_type for node in attribute.g.node] for attribute in choice.attribute}
    assert (choice.op_type, list(choice.input)) == ("If", ["scored"])
    assert "Softmax" in branches["then_branch"]
    assert branches["else_branch"] == ["Sub"]


def test_a_step_of_another_target_is_not_told(tmp_path: Path) -> None:
    """One of operators of ONNX alone finds it always."""
    package = _export(save_translator, tmp_path, Options(name="model", target="portable"))
    assert "scored" not in [spec.name for spec in package.manifest.graphs["step"].inputs]


def _export(save: Callable[[Path], Path], directory: Path, options: Options) -> Package:
    return load_package(export(save(directory / "checkpoint"), directory / "models", options))


def _run(package: Package, graph: str, sizes: dict[str, int], *, scored: bool) -> dict[str, Array]:
    """Return what the service's session gives of a step of random numbers, for which nobody asks for weights."""
    manifest, random = package.manifest, np.random.default_rng(0)
    numbers = NUMBERS | {"scored": scored, "num_screened": 8 if graph == "step_alone" else 0}
    feeds: dict[str, Array] = {}
    for spec in manifest.graphs[graph].inputs:
        shape = [size if isinstance(size, int) else sizes.get(size, 0) for size in spec.shape]
        drawn = spec.dtype == "float"
        values = random.standard_normal(shape) if drawn else np.full(shape, numbers.get(spec.name, 0))
        feeds[spec.name] = values.astype(np.float32 if drawn else spec.dtype)
    caches = {state.output: feeds[state.input] for state in manifest.state}
    session = open_session(package, "step", EngineSettings(provider="cpu"))
    return caches | dict(zip(OUTPUTS, session.bind(feeds, caches, OUTPUTS).run(), strict=True))

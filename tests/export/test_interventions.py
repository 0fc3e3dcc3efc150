"""Graphs that take interventions: with the weights of the plain ones, and proven."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from regard.manifest import load_package
from regard_export import intervention_proof
from regard_export.checkpoint import load_checkpoint
from regard_export.errors import ExportError
from regard_export.intervention_proof import Plan, compare_interventions
from regard_export.languages import ANY_LANGUAGES
from regard_export.package import Options, export
from regard_export.parity import Parity
from regard_export.stepping import Feeds

from ..conftest import Intervenable  # noqa: TID252 - tests are no package of sys.path
from .checkpoints import save_completer, save_image_classifier
from .test_shared_weights import weight_files

SMALL_BYTES = 1024


def test_the_weights_of_both_graphs_are_one_file(intervenable: Intervenable) -> None:
    """What takes interventions has no file of weights of its own, and no large one inside it."""
    for name, graphs in (("sorter", ["classifier"]), ("translator", ["encoder", "step"])):
        package = load_package(intervenable.models / name / "1")
        files = {path.name for path in package.directory.glob("*.data")}
        assert files == {f"{graph}.onnx.data" for graph in graphs}
        for graph in graphs:
            twin = package.manifest.graphs[graph].intervened_graph
            assert twin is not None
            model = ir.load(package.path(package.manifest.graphs[twin].file))
            inside = [value.const_value for value in model.graph.initializers.values()]
            plain = ir.load(package.path(package.manifest.graphs[graph].file))
            assert weight_files(model) == weight_files(plain) <= files
            assert all(isinstance(one, ir.ExternalTensor) or one.nbytes < SMALL_BYTES for one in inside if one)


def test_plain_graphs_know_nothing_of_interventions(intervenable: Intervenable) -> None:
    """They have neither the inputs nor the operators; their twins have both, and the same fused attention."""
    for name, graph in (("sorter", "classifier"), ("translator", "encoder"), ("translator", "step")):
        graphs = load_package(intervenable.models / name / "1").manifest.graphs
        plain = graphs[graph]
        twin = graphs[plain.intervened_graph or ""]
        added = {tensor.name for tensor in twin.inputs} - {tensor.name for tensor in plain.inputs}
        assert added and all(name.endswith(("_head_gate", "_bias", "_bias_index")) for name in added)
        assert "Mul" not in plain.operators or plain.operators["Mul"] < twin.operators["Mul"]
        fused = [{k: v for k, v in one.operators.items() if "Attention" in k} for one in (plain, twin)]
        assert fused[0] == fused[1] != {}


def test_the_proof_notices_a_graph_that_keeps_what_was_knocked_out(
    intervenable: Intervenable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fed open gates where the eager model's are shut, the graph is far from it; fed the same, it is not."""
    package = load_package(intervenable.models / "sorter" / "1")
    files = {"classifier": package.path("classifier_with_interventions.onnx")}
    checkpoint = load_checkpoint(intervenable.sorter, ANY_LANGUAGES)
    feeds = Plan.feeds.fget

    def open_gates(plan: Plan) -> Feeds:
        assert feeds is not None
        return feeds(plan) | {"self_head_gate": np.ones_like(plan.gates)}

    seen = []
    for changed in (None, property(open_gates)):
        if changed is not None:
            monkeypatch.setattr(intervention_proof.Plan, "feeds", changed)
        parity = Parity(1e-4, ())
        compare_interventions(checkpoint, files, package.manifest.taps, parity, Plan.drawn)
        seen.append(parity.differences["logits"])
    assert seen[0] < 1e-4 < 1e-2 < seen[1]


def test_what_can_not_be_intervened_in_is_refused_by_name(tmp_path: Path) -> None:
    """A completion model by its task; layers that are unlike one another by what they lack."""
    with pytest.raises(ExportError, match=r"GPT2LMHeadModel takes no interventions.*leave --interventions out"):
        export(save_completer(tmp_path / "gpt2"), tmp_path, Options(name="a", interventions=True))
    swin = save_image_classifier(tmp_path / "swin", "Swin", depths=[1], num_heads=[2])
    with pytest.raises(ExportError, match="none of its layers has attention between all positions"):
        export(swin, tmp_path, Options(name="b", interventions=True))
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()

"""Packages for other targets than this machine: what they hold, what was compared, and who may serve them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx.external_data_helper import ExternalDataInfo
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from regard.config import EngineSettings
from regard.engine.observer import SilentObserver
from regard.engine.request import GeneratedSequence, GenerateRequest, Generation
from regard.engine.search.options import GenerationOptions
from regard.engine.source import Tokens
from regard.errors import RegardError
from regard.manifest import GraphSpec, Package, load_package
from regard.worker import Worker
from regard_export.checkpoint import load_checkpoint
from regard_export.cli import app
from regard_export.errors import ExportError, ParityError
from regard_export.languages import ANY_LANGUAGES
from regard_export.package import Options, export
from regard_export.parity import Parity
from regard_export.precision import in_precision

from .checkpoints import save_captioner, save_classifier, save_translator
from .families import COMPLETERS, TEXT_CLASSIFIERS

CHECKPOINTS: dict[str, Callable[[Path], Path]] = {
    "translator": save_translator,
    "captioner": save_captioner,
    "classifier": save_classifier,
    "modern": lambda at: save_classifier(at, "ModernBert", **TEXT_CLASSIFIERS["ModernBert"]),
    "llama": COMPLETERS["Llama"],
    "gemma": COMPLETERS["Gemma 3"],
}
DEMONSTRATION = Path(__file__).parents[2] / "export" / "checkpoints"
STANDARD = (
    ("translator", "portable", "fp32"),
    ("translator", "tensorrt", "fp32"),
    ("captioner", "portable", "fp16"),
    ("captioner", "tensorrt", "fp16"),
    ("classifier", "portable", "int8"),
    ("classifier", "tensorrt", "fp32"),
    ("llama", "tensorrt", "fp32"),
    ("gemma", "tensorrt", "fp16"),
)
CUDA = (("translator", "cuda", "fp16"), ("captioner", "cuda", "fp32"), ("classifier", "cuda", "fp16"))
TOLERANCES = {"fp32": 1e-4, "fp16": 2e-2, "int8": None}

Exported = Callable[[str, str, str], Package]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Return the package of a kind of model for a target and a precision; each is made once."""
    root, packages = tmp_path_factory.mktemp("targets"), dict[tuple[str, str, str], Package]()

    def package(kind: str, target: str, precision: str) -> Package:
        checkpoint, name = root / kind, f"{kind}-{target}-{precision}"
        if not checkpoint.exists():
            CHECKPOINTS[kind](checkpoint)
        if (kind, target, precision) not in packages:
            directory = export(checkpoint, root / "models", Options(name=name, target=target, precision=precision))
            packages[kind, target, precision] = load_package(directory)
        return packages[kind, target, precision]

    return package


def plain_graphs(package: Package) -> dict[str, GraphSpec]:
    """Return the graphs that give no taps."""
    return {name: graph for name, graph in package.manifest.graphs.items() if graph.tap_graph is not None}


def nodes(package: Package, graph: GraphSpec, operator: str) -> list[onnx.NodeProto]:
    """Return the nodes of one operator."""
    model = onnx.load(package.path(graph.file), load_external_data=False)
    return [node for node in model.graph.node if node.op_type == operator]


def weights(package: Package, graph: GraphSpec) -> dict[str, tuple[str, int | None, int | None]]:
    """Return the place of every weight outside the graph's own file: file, offset and length."""
    initializers = onnx.load(package.path(graph.file), load_external_data=False).graph.initializer
    places = {tensor.name: ExternalDataInfo(tensor) for tensor in initializers if tensor.external_data}
    return {name: (place.location, place.offset, place.length) for name, place in places.items()}


@pytest.mark.parametrize("what", STANDARD, ids="-".join)
def test_portable_and_tensorrt_graphs_hold_operators_of_onnx_alone(
    what: tuple[str, str, str], exported: Exported
) -> None:
    """No operator of another domain, and ONNX' checker, types and shapes included, has nothing to say."""
    package = exported(*what)
    for graph in package.manifest.graphs.values():
        assert not [operator for operator in graph.operators if "::" in operator]
        model = onnx.load(package.path(graph.file), load_external_data=False)
        assert [entry.domain for entry in model.opset_import] == [""]
        onnx.checker.check_model(package.path(graph.file), full_check=True)


@pytest.mark.parametrize("what", CUDA, ids="-".join)
def test_cuda_graphs_pass_the_checker(what: tuple[str, str, str], exported: Exported) -> None:
    """Fused operators of ONNX Runtime beside those of ONNX."""
    package = exported(*what)
    for graph in package.manifest.graphs.values():
        assert graph.operators["com.microsoft::MultiHeadAttention"] == 2
        assert graph.operators["com.microsoft::SkipLayerNormalization"] >= 4
        onnx.checker.check_model(package.path(graph.file))


def test_heads_that_share_keys_and_rotary_positions_stay_fused_on_cuda(exported: Exported) -> None:
    """A layer of a step is its products, one attention, two rotations and two norms."""
    package = exported("llama", "cuda", "fp16")
    step = package.manifest.graphs["step"].operators
    assert step["com.microsoft::GroupQueryAttention"] == 2
    assert step["com.microsoft::SkipSimplifiedLayerNormalization"] == step["RotaryEmbedding"] == 4
    assert {spec.heads for spec in package.manifest.state} == {2}
    assert {tap.heads for tap in package.manifest.taps} == {4}
    for graph in package.manifest.graphs.values():
        onnx.checker.check_model(package.path(graph.file))


def test_rotations_of_what_a_model_casts_to_float32_stay_fused_on_cuda(exported: Exported) -> None:
    """ModernBERT casts queries and keys, and the cosines and sines of their angles."""
    package = exported("modern", "cuda", "fp16")
    for graph in package.manifest.graphs.values():
        assert graph.operators["RotaryEmbedding"] == 4
        assert "Neg" not in graph.operators
        onnx.checker.check_model(package.path(graph.file))


def test_scores_of_a_step_are_biased_on_cuda_where_its_kernels_take_a_bias(exported: Exported) -> None:
    """A window is a bias, which `GroupQueryAttention` refuses there; a layer that sees all has none."""
    package = exported("gemma", "cuda", "fp16")
    step = package.manifest.graphs["step"]
    assert step.operators["com.microsoft::GroupQueryAttention"] == step.operators["Attention"] == 1
    (fused,), (windowed,) = (nodes(package, step, operator) for operator in ("GroupQueryAttention", "Attention"))
    assert not any(fused.input[7:])
    assert windowed.input[3]
    onnx.checker.check_model(package.path(step.file))


@pytest.mark.parametrize("what", STANDARD + CUDA, ids="-".join)
def test_the_report_says_what_was_compared_and_where(what: tuple[str, str, str], exported: Exported) -> None:
    """Figures of this machine's CPU within the precision's tolerance, and the providers that nobody tried."""
    package = exported(*what)
    _, target, precision = what
    report = json.loads(package.path("parity.json").read_text())
    ours, eager = report["max_abs_difference"], report["eager_max_abs_difference"]
    assert report["tolerance"] == TOLERANCES[precision]
    assert eager.keys() == (ours.keys() if precision == "fp16" else set())
    assert max(ours.values()) > 0
    assert all(ours[name] <= max(TOLERANCES[precision] or np.inf, 2 * eager.get(name, 0)) for name in ours)
    assert {tap.name for tap in package.manifest.taps} <= report["max_abs_difference"].keys()
    assert report["greedy_tokens_different"] == 0
    assert report["compared_on"] == ["cpu"]
    untried = {"tensorrt": ["cuda", "tensorrt"]}.get(target, ["cuda"] if precision != "int8" else [])
    assert report["not_compared_on"] == untried


def test_a_trained_model_may_be_as_far_off_in_fp16_as_its_eager_model_is(tmp_path: Path) -> None:
    """The report says by how much PyTorch's own do, which is beyond what any model may be off."""
    options = Options(name="demo-en-fr", target="cuda", precision="fp16")
    package = load_package(export(DEMONSTRATION / "demo-en-fr", tmp_path, options))
    report = json.loads(package.path("parity.json").read_text())
    ours, eager = report["max_abs_difference"], report["eager_max_abs_difference"]
    assert ours.keys() == eager.keys() > {"logits", "decoder.cross.0"}
    assert eager["logits"] > TOLERANCES["fp16"]
    assert all(ours[name] <= max(2 * eager[name], TOLERANCES["fp16"]) for name in ours)
    for graph in package.manifest.graphs.values():
        onnx.checker.check_model(package.path(graph.file))


@pytest.mark.parametrize("family", ["Llama", "Gemma 3"])
def test_far_positions_turn_in_fp16_as_they_do_where_transformers_loads_it(family: str, tmp_path: Path) -> None:
    """By angles of float32: those of eleven bits would be others some thousands of positions away."""
    checkpoint = load_checkpoint(COMPLETERS[family](tmp_path), ANY_LANGUAGES)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float16, attn_implementation="eager")
    far = {"input_ids": torch.tensor([[5, 6]]), "position_ids": torch.tensor([[0, 5000]])}
    with torch.no_grad():
        ours, theirs = in_precision(checkpoint, "fp16").model(**far), loaded(**far)
    assert torch.equal(ours.logits, theirs.logits)


def test_beyond_both_it_is_refused() -> None:
    """The error names the larger of the two limits."""
    parity = Parity(2e-2, (), {"logits": 2e-2})
    parity.note("logits", np.full(3, 0.03, np.float32), torch.zeros(3))
    parity.require()
    parity.note("logits", np.full(3, 0.06, np.float32), torch.zeros(3))
    with pytest.raises(ParityError, match=r"logits differs from the eager model by 6\.0e-02, over 4e-02"):
        parity.require()


@pytest.mark.parametrize(
    ("ours", "eager", "finite"),
    [
        ([0.0, np.nan], [0.0, 0.0], False),
        ([0.0, 0.0], [0.0, np.nan], False),
        ([0.0, np.inf], [0.0, -np.inf], False),
        ([0.0, -np.inf], [0.0, -np.inf], True),
    ],
)
@pytest.mark.parametrize("tolerance", [1e-4, None])
def test_what_is_no_number_is_refused_even_where_differences_are_only_reported(
    ours: list[float], eager: list[float], finite: bool, tolerance: float | None
) -> None:
    """Whoever has it; the same infinity on both sides is no difference."""
    parity = Parity(tolerance, ())
    parity.note("logits", np.array(ours, np.float32), torch.tensor(eager))
    if finite:
        parity.require()
        assert parity.differences == {"logits": 0.0}
    else:
        with pytest.raises(ParityError, match="logits isn't finite where the eager model's is, or the reverse"):
            parity.require()


def test_a_model_that_overflows_in_fp16_is_refused(tmp_path: Path) -> None:
    """The eager model is no measure of a graph then; the error says what to do, and nothing is written."""
    checkpoint = save_classifier(tmp_path / "classifier")
    weights = checkpoint / "model.safetensors"
    tensors = load_file(weights)
    tensors["classifier.weight"] *= 1e8
    save_file(tensors, weights, {"format": "pt"})
    with pytest.raises(ExportError, match="overflows in fp16: its logits isn't finite; export it in fp32"):
        export(checkpoint, tmp_path / "models", Options(name="huge", target="cuda", precision="fp16"))
    assert not list((tmp_path / "models").rglob("manifest.json"))


@pytest.mark.parametrize("what", [*CUDA, STANDARD[1], STANDARD[3]], ids="-".join)
def test_the_plain_graph_is_the_other_without_its_taps(what: tuple[str, str, str], exported: Exported) -> None:
    """The tap graph takes rows and gives weights besides; the same files hold every weight of both, once."""
    package = exported(*what)
    for name, plain in plain_graphs(package).items():
        assert plain.tap_graph is not None
        tapped = package.manifest.graphs[plain.tap_graph]
        taps = package.manifest.taps_of(name)
        assert {t.name for t in tapped.inputs} - {t.name for t in plain.inputs} == {tap.rows_input for tap in taps}
        assert {t.name for t in tapped.outputs} - {t.name for t in plain.outputs} == {tap.output for tap in taps}
        assert "If" in tapped.operators and "If" not in plain.operators
        assert weights(package, plain) == weights(package, tapped) != {}
    read = {place for graph in package.manifest.graphs.values() for place in weights(package, graph).values()}
    for file in {location for location, _, _ in read}:
        assert package.path(file).stat().st_size == sum(length or 0 for at, _, length in read if at == file)
    assert plain_graphs(package).keys() == {tap.graph for tap in package.manifest.taps}


@pytest.mark.parametrize("what", CUDA, ids="-".join)
def test_attention_of_the_plain_cuda_graph_can_be_flash_attention(
    what: tuple[str, str, str], exported: Exported
) -> None:
    """No scores are connected, no bias, and of masks the key lengths of texts alone, of one dimension."""
    package = exported(*what)
    for graph in plain_graphs(package).values():
        for node in nodes(package, graph, "MultiHeadAttention"):
            inputs = [*node.input, "", "", ""]
            assert len(node.output) == 1
            assert inputs[4] in ("", "source_length")
            assert inputs[5] == ""
        for node in nodes(package, graph, "GroupQueryAttention"):
            assert len(node.output) == 3
    lengths = [t.shape for g in package.manifest.graphs.values() for t in g.inputs if t.name == "source_length"]
    assert set(lengths) <= {("R",)}


def test_the_cache_of_a_cuda_decoder_suits_its_precision(exported: Exported) -> None:
    """In fp16 the fused operator appends in place; in fp32, which it doesn't take, ONNX' own do."""
    half, full = exported("translator", "cuda", "fp16"), exported("captioner", "cuda", "fp32")
    assert half.manifest.graphs["step"].operators["com.microsoft::GroupQueryAttention"] == 2
    assert {state.dtype for state in half.manifest.state + half.manifest.cross_state} == {"float16"}
    assert full.manifest.graphs["step"].operators["TensorScatter"] == 4
    assert full.manifest.graphs["step"].operators["Attention"] == 2
    assert {state.dtype for state in full.manifest.state + full.manifest.cross_state} == {"float"}
    for package in (half, full):
        spec = {tensor.name: tensor.dtype for graph in package.manifest.graphs.values() for tensor in graph.outputs}
        shown = {name: dtype for name, dtype in spec.items() if not name.startswith(("cross_", "present_"))}
        assert set(shown.values()) == {"float", "int64"}


def test_tensorrt_reads_the_source_and_cuda_decodes(exported: Exported) -> None:
    """The manifest says which graph is whose, and which sizes TensorRT is to build its engine for."""
    graphs = exported("translator", "tensorrt", "fp32").manifest.graphs
    assert {name: graph.providers for name, graph in graphs.items()} == {
        "encoder": ("tensorrt", "cuda", "cpu"),
        "encoder_with_taps": ("cuda", "cpu"),
        "step": ("cuda", "cpu"),
        "step_with_taps": ("cuda", "cpu"),
    }
    sizes = {letter: (profile.min, profile.opt, profile.max) for letter, profile in graphs["encoder"].profiles.items()}
    assert sizes == {"R": (1, 8, 64), "S": (1, 64, 144)}
    assert "Attention" not in graphs["encoder"].operators
    assert graphs["encoder_with_taps"].profiles == graphs["step"].profiles == {}
    images = exported("captioner", "tensorrt", "fp16").manifest.graphs["encoder"]
    assert images.profiles.keys() == {"R"}


@pytest.mark.parametrize(
    ("target", "precision", "instead"),
    [
        ("cpu", "fp16", "choose --precision fp32 or int8, or --target portable or cuda or tensorrt for fp16"),
        ("cuda", "int8", "choose --precision fp16 or fp32, or --target cpu or portable for int8"),
        ("tensorrt", "int8", "choose --precision fp16 or fp32, or --target cpu or portable for int8"),
    ],
)
def test_a_precision_that_a_target_lacks_is_refused(target: str, precision: str, instead: str, tmp_path: Path) -> None:
    """One sentence says what to use; nothing is loaded, and nothing is written."""
    options = ["--output", str(tmp_path / "models"), "--target", target, "--precision", precision]
    result = CliRunner().invoke(app, [str(tmp_path), *options])
    assert result.exit_code == 2
    assert f"target {target} has no {precision}: {instead}" in result.stderr.replace("\n", " ")
    assert not (tmp_path / "models").exists()


def serve(package: Package, provider: str = "cpu") -> Worker:
    """Return a started worker."""
    worker = Worker(package, EngineSettings(provider=provider), SilentObserver())
    worker.start()
    return worker


def answers(package: Package, sources: list[list[int]]) -> list[GeneratedSequence]:
    """Return what a worker on the CPU generates for sources of tokens, all at once, every tap asked for."""
    taps = frozenset(tap.name for tap in package.manifest.taps)
    options = GenerationOptions(max_new_tokens=12)
    worker = serve(package)

    async def ask() -> list[GeneratedSequence]:
        requests = [GenerateRequest(Tokens(np.array(source)), options, taps) for source in sources]
        results = await asyncio.gather(*map(worker.run, requests))
        return [result.best for result in results if isinstance(result, Generation)]

    try:
        return asyncio.run(ask())
    finally:
        worker.stop()


@pytest.mark.parametrize("target", ["portable", "tensorrt"])
def test_a_package_of_standard_operators_is_served_on_a_cpu(target: str, exported: Exported) -> None:
    """Its tokens are those of the `cpu` package, and its maps as near as two exact ones are."""
    sources = [[5, 9, 30, 0], [7, 0], [60, 61, 62, 63, 64, 65, 0]]
    expected = answers(exported("translator", "cpu", "fp32"), sources)
    got = answers(exported("translator", target, "fp32"), sources)
    assert [one.token_ids for one in got] == [one.token_ids for one in expected]
    assert len(got) == len(sources)
    for one, other in zip(got, expected, strict=True):
        assert one.taps.keys() == other.taps.keys() != set()
        assert all(np.allclose(one.taps[name], other.taps[name], rtol=0, atol=1e-4) for name in one.taps)


def test_a_cuda_package_is_refused_by_a_server_without_cuda(exported: Exported) -> None:
    """The error names the package, what it was exported for, and a way out."""
    for provider in ("auto", "cpu"):
        with pytest.raises(RegardError, match=r"translator-cuda-fp16/1 is exported for cuda"):
            serve(exported("translator", "cuda", "fp16"), provider)

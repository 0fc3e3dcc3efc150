"""From a checkpoint on disk to a package: what is in it, what it proves, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.masking_utils import sliding_window_causal_mask_function
from typer.testing import CliRunner

from regard.engine.search.options import options_of
from regard.manifest import ActivationScale, GraphSpec, Task, load_package
from regard_export import attention
from regard_export.checkpoint import load_checkpoint
from regard_export.cli import app
from regard_export.errors import ExportError, ParityError
from regard_export.languages import ANY_LANGUAGES
from regard_export.package import Options, export
from regard_export.precision import TOLERANCES

from .checkpoints import save_completer, save_translator
from .families import COMPLETERS

LAYERS = range(2)
DYNAMIC = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
WIDE = {"num_key_value_heads": 2, "sliding_window": 4096, "max_position_embeddings": 8192}
HYBRID = {"num_key_value_heads": 2, "layer_types": ["conv", "full_attention"]}
SINKS = {"head_dim": 8, "num_key_value_heads": 2, "num_local_experts": 4, "sliding_window": 24}


@pytest.fixture(scope="session")
def translator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random translator's checkpoint."""
    return save_translator(tmp_path_factory.mktemp("translator") / "tiny")


@pytest.fixture(scope="session")
def translator_package(translator: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of the random translator."""
    return export(translator, tmp_path_factory.mktemp("models"), Options(name="tiny"))


def left_behind(models: Path) -> list[str]:
    """Return whatever lies below a models directory."""
    return [str(path.relative_to(models)) for path in models.rglob("*")] if models.exists() else []


def test_a_translator_becomes_a_package_that_says_everything(translator_package: Path) -> None:
    """The manifest names graphs, fused operators, state, cross state and a tap for every layer."""
    manifest = load_package(translator_package).manifest
    assert (manifest.task, manifest.source.architecture) == (Task.TRANSLATION, "MarianMTModel")
    assert manifest.graphs["step"].operators["com.microsoft::GroupQueryAttention"] == 2
    assert manifest.graphs["step"].operators["com.microsoft::MultiHeadAttention"] == 2
    assert manifest.graphs["encoder"].operators["Attention"] == 2
    step = manifest.graphs["step"].optimized_operators
    assert step["LayerNormalization"] == 6 and "com.microsoft::SkipLayerNormalization" not in step
    assert step["Gather"] == 2, "only the embeddings of tokens and positions are looked up"
    assert {tap.name for tap in manifest.taps} == {
        f"{kind}.{layer}" for kind in ("encoder.self", "decoder.self", "decoder.cross") for layer in LAYERS
    }
    assert [(spec.input, spec.output) for spec in manifest.state] == [
        (f"past_{half}.{layer}", f"present_{half}.{layer}") for half in ("key", "value") for layer in LAYERS
    ]
    assert manifest.generation is not None
    assert manifest.generation.suppressed_token_ids == (2,)
    assert manifest.generation.max_target_tokens == 159


def test_the_parity_report_has_measured_figures(translator_package: Path) -> None:
    """Logits, every tap and the tokens were compared, and all lie within the tolerance."""
    report = json.loads((translator_package / "parity.json").read_text())
    differences = report["max_abs_difference"]
    assert {"logits", "log_sum_exp", "encoder.self.1", "decoder.self.0", "decoder.cross.1"} <= differences.keys()
    assert 0 < max(differences.values()) < 1e-4
    assert report["greedy_tokens_compared"] > 50
    assert report["greedy_tokens_different"] == 0


def test_a_package_without_taps_has_none(translator: Path, tmp_path: Path) -> None:
    """Neither the manifest nor the graphs know of attention weights."""
    manifest = load_package(export(translator, tmp_path, Options(name="plain", taps=False))).manifest
    assert manifest.taps == ()
    assert not [spec.name for graph in manifest.graphs.values() for spec in graph.inputs if spec.name.endswith("_rows")]
    assert "If" not in manifest.graphs["encoder"].operators


def test_int8_multiplies_in_int8_and_reports_what_it_loses(translator: Path, tmp_path: Path) -> None:
    """Every matrix product with weights is quantised, and the report says how far it strays."""
    directory = export(translator, tmp_path, Options(name="tiny", precision="int8"))
    manifest = load_package(directory).manifest
    step = manifest.graphs["step"].operators
    assert step["MatMulInteger"] + step["com.microsoft::MatMulIntegerToFloat"] == 13
    assert "MatMul" not in step
    report = json.loads((directory / "parity.json").read_text())
    assert report["tolerance"] is None
    assert report["max_abs_difference"]["logits"] > 1e-4
    verified = CliRunner().invoke(app, ["verify", str(directory), "--against", str(translator)])
    assert verified.exit_code == 0, verified.output
    assert "int8 isn't judged" in " ".join(verified.stdout.split())


def test_int8_keeps_no_weights_but_its_own(translator: Path, translator_package: Path, tmp_path: Path) -> None:
    """Its files are smaller than those in fp32, and may be read by the same people."""
    small = export(translator, tmp_path, Options(name="tiny", precision="int8"))
    for name in ("encoder.onnx.data", "step.onnx.data"):
        ours, theirs = ((package / name).stat() for package in (small, translator_package))
        assert ours.st_size < 0.6 * theirs.st_size
        assert ours.st_mode == theirs.st_mode


@pytest.mark.parametrize(
    ("kind", "sizes", "message"),
    [
        ("Gemma2", {"head_dim": 8, "sliding_window": 24}, r"capped softly at 50\.0, which aren't taken yet"),
        (
            "Llama",
            {"rope_parameters": DYNAMIC},
            r"turns positions by other angles once a text is long \(rope_type dynamic",
        ),
        ("Mistral", WIDE, r"within 4,096 positions of up to 8,192, by its sliding_window; more than 1,024 aren't"),
        ("Mistral", WIDE | {"sliding_window": 0}, "sliding_window is 0; make it 1 at least, or null for none"),
        (
            "Mistral",
            WIDE | {"sliding_window": 140},
            r"too few tokens .+ make model_max_length in tokenizer_config.json",
        ),
        (
            "Lfm2",
            HYBRID,
            r"Lfm2ForCausalLM has layers without keys and values, .+ \(1, the first is 0\); only layers of attention",
        ),
        ("GptOss", SINKS, "GptOssAttention has attention sinks, which aren't taken yet"),
    ],
)
def test_a_decoder_of_another_kind_is_refused_by_what_it_is(
    kind: str, sizes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """One sentence, though no text of the proof is as long as what it speaks of."""
    checkpoint = save_completer(tmp_path / kind, kind, **sizes)
    with pytest.raises(ExportError, match=message):
        export(checkpoint, tmp_path / "models", Options(name="tiny"))


@pytest.mark.parametrize("wrong", [19, 21])
def test_a_window_of_another_width_is_found_out(wrong: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof reads texts that are longer than the window, and decodes behind them."""
    checkpoint = COMPLETERS["Gemma 3"](tmp_path / "checkpoint")
    window = attention._window

    def off(*arguments: Any) -> torch.Tensor:
        trace, _, *others = arguments
        return window(trace, sliding_window_causal_mask_function(wrong), *others)

    monkeypatch.setattr(attention, "_window", off)
    with pytest.raises(ParityError, match="differs from the eager model"):
        export(checkpoint, tmp_path / "models", Options(name="tiny"))


def test_a_window_without_a_real_token_leaves_numbers_in_fp16() -> None:
    """Scores are as low as they may be; what is outside has no weight."""
    trace = attention.Trace(None, {}, frozenset(), window=1)
    bias = attention._window(trace, sliding_window_causal_mask_function(1), 3, torch.float16, 1)
    weights = torch.softmax((bias[0, 0] - 1000)[:, :2], -1)
    assert weights[2].tolist() == [0.5, 0.5]
    assert weights[:2].tolist() == [[1, 0], [0, 1]]


def test_tokens_with_scales_of_their_own_know_nothing_of_their_neighbours(translator: Path, tmp_path: Path) -> None:
    """The state of a source is the same alone and beside another; with one scale for both it isn't."""
    moved = {}
    for scale in ("tensor", "token"):
        options = Options(name=scale, precision="int8", activation_scale=scale)
        package = load_package(export(translator, tmp_path, options))
        assert package.manifest.activation_scale == scale
        encoder = package.manifest.graphs["encoder"]
        session = ort.InferenceSession(str(package.path(encoder.file)), providers=["CPUExecutionProvider"])
        ids = np.array([[5, 6, 7, 8], [30, 31, 32, 33]])
        together, alone = (session.run(["cross_key.0"], feeds_of(encoder, ids[:rows], rows))[0][0] for rows in (2, 1))
        moved[scale] = float(np.abs(together - alone).max())
    assert moved["token"] < 1e-6
    assert moved["tensor"] > 1e-4


@pytest.mark.parametrize(("target", "scale", "products"), [("cpu", "mixed", 2), ("portable", "tensor", 0)])
def test_int8_gives_tokens_scales_where_it_costs_least(
    translator: Path, tmp_path: Path, target: str, scale: str, products: int
) -> None:
    """On CPUs, before the products of the feed-forward networks that narrow, and no other; elsewhere nowhere."""
    manifest = load_package(
        export(translator, tmp_path, Options(name="tiny", target=target, precision="int8"))
    ).manifest
    assert manifest.activation_scale == scale
    step = manifest.graphs["step"].operators
    assert step.get("com.microsoft::MatMulIntegerToFloat", 0) == products
    assert step["MatMulInteger"] == 13 - products


def feeds_of(encoder: GraphSpec, ids: np.ndarray, rows: int) -> dict[str, np.ndarray]:
    """Return what an encoder reads of sources without padding, whose weights nobody asks for."""
    nobody = {spec.name: np.zeros(0, np.int64) for spec in encoder.inputs if spec.name.endswith("_rows")}
    return {"input_ids": ids, "source_length": np.full(rows, ids.shape[1], np.int32), **nobody}


@pytest.mark.parametrize(
    ("target", "precision", "scale"),
    [("cpu", "fp32", "token"), ("portable", "int8", "token"), ("portable", "int8", "mixed"), ("cpu", "fp32", "tensor")],
)
def test_scales_of_tokens_are_for_int8_on_cpus(
    translator: Path, tmp_path: Path, target: str, precision: str, scale: ActivationScale
) -> None:
    """Elsewhere they are refused before any work, and all scales are in other precisions."""
    options = Options(name="tiny", target=target, precision=precision, activation_scale=scale)
    with pytest.raises(ExportError, match=f"not for {target} in {precision}; leave --activation-scale out"):
        export(translator, tmp_path, options)


def test_an_existing_package_is_replaced_only_if_asked(translator_package: Path, translator: Path) -> None:
    """Without `overwrite` the export is refused before any work."""
    with pytest.raises(ExportError, match="tiny/1 exists already"):
        export(translator, translator_package.parents[1], Options(name="tiny"))


def spoil(checkpoint: Path, how: str) -> None:
    """Damage a checkpoint in one of the ways that users' checkpoints are damaged."""
    weights = checkpoint / "model.safetensors"
    if how == "truncated weights":
        weights.write_bytes(weights.read_bytes()[:5000])
    elif how == "no weights":
        weights.unlink()
    elif how == "no tokenizer":
        (checkpoint / "tokenizer.json").unlink()
    elif how == "config is not JSON":
        (checkpoint / "config.json").write_text("{")
    elif how == "weights of another shape":
        config = json.loads((checkpoint / "config.json").read_text())
        (checkpoint / "config.json").write_text(json.dumps(config | {"d_model": 64}))
    elif how == "no part of the weights":
        weights.unlink()
        index = {"weight_map": {"model.shared.weight": "model-00001-of-00002.safetensors"}}
        (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    elif how == "weights of integers":
        tensors = load_file(weights)
        name = "model.encoder.layers.0.fc1.weight"
        save_file(tensors | {name: tensors[name].to(torch.int8)}, weights, {"format": "pt"})
    elif how == "quantised by a library":
        config = json.loads((checkpoint / "config.json").read_text())
        quantization = {"quant_method": "bitsandbytes", "load_in_8bit": True}
        (checkpoint / "config.json").write_text(json.dumps(config | {"quantization_config": quantization}))
    elif how == "no config":
        (checkpoint / "config.json").unlink()
    elif how == "unsupported":
        (checkpoint / "config.json").write_text('{"model_type": "clap", "architectures": ["ClapModel"]}')
    elif how == "no architectures":
        (checkpoint / "config.json").write_text('{"model_type": "bert"}')
    elif how == "unknown penalty":
        file = checkpoint / "generation_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"encoder_repetition_penalty": 1.3}))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("truncated weights", "model.safetensors can't be loaded"),
        ("no weights", "no model.safetensors"),
        ("no part of the weights", "no model-00001-of-00002.safetensors, which model.safetensors.index.json names"),
        ("weights of integers", "holds model.encoder.layers.0.fc1.weight as I8; export the checkpoint that it was"),
        ("quantised by a library", "config.json has a quantization_config (bitsandbytes)"),
        ("no config", "config.json can't be loaded: [Errno 2] No such file or directory"),
        ("no tokenizer", "no tokenizer.json"),
        ("config is not JSON", "config.json can't be loaded"),
        ("weights of another shape", "model.safetensors"),
        ("unsupported", "ClapModel"),
        ("no architectures", "bad is a model of no named class (bert), which can't be exported"),
        ("unknown penalty", "encoder_repetition_penalty to 1.3"),
    ],
)
def test_a_bad_checkpoint_is_one_clear_error_and_leaves_nothing(
    how: str, message: str, translator: Path, tmp_path: Path
) -> None:
    """The command says what is wrong in one paragraph, exits with 2, and writes no file."""
    checkpoint = Path(shutil.copytree(translator, tmp_path / "bad"))
    spoil(checkpoint, how)
    result = CliRunner().invoke(app, [str(checkpoint), "--output", str(tmp_path / "models")])
    assert result.exit_code == 2
    assert message in result.stderr.replace("\n", " ")
    assert "Traceback" not in result.stderr
    assert left_behind(tmp_path / "models") == []


def test_lengths_of_a_checkpoint_are_for_whoever_names_none(translator: Path, tmp_path: Path) -> None:
    """As in `generate()`: the checkpoint's `max_new_tokens` comes before its `max_length`, a request's before both."""
    checkpoint = Path(shutil.copytree(translator, tmp_path / "tiny"))
    file = checkpoint / "generation_config.json"
    written = json.loads(file.read_text())
    file.write_text(json.dumps(written | {"max_length": 20, "max_new_tokens": 60, "min_new_tokens": 4}))
    spec = load_checkpoint(checkpoint, ANY_LANGUAGES).generation
    assert spec is not None and spec.max_target_tokens == 159, "the positions that there are, but for the start token's"
    assert (spec.defaults.min_new_tokens, spec.defaults.max_new_tokens) == (4, 60)
    assert [options_of(spec, given).max_new_tokens for given in ({}, {"max_new_tokens": 100})] == [60, 100]

    file.write_text(json.dumps(written | {"max_length": 20}))
    spec = load_checkpoint(checkpoint, ANY_LANGUAGES).generation
    assert spec is not None
    assert [options_of(spec, given).max_new_tokens for given in ({}, {"max_new_tokens": 100})] == [19, 100]


def test_a_package_that_strays_is_not_written(
    translator: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the graphs differed from the eager model by more than the tolerance, there is no package."""
    monkeypatch.setitem(TOLERANCES, "fp32", 1e-9)
    with pytest.raises(ExportError, match=r"^[\w.]+ differs from the eager model by \d.\de-\d+, over 1e-09"):
        export(translator, tmp_path / "models", Options(name="tiny"))
    assert left_behind(tmp_path / "models") == []


@pytest.mark.parametrize(("option", "value"), [("--name", "../up"), ("--name", ".hidden"), ("--version", "0")])
def test_names_and_versions_that_are_no_directories_are_refused(
    option: str, value: str, translator: Path, tmp_path: Path
) -> None:
    """A name can't lead out of the models directory."""
    result = CliRunner().invoke(app, [str(translator), "--output", str(tmp_path / "models"), option, value])
    assert result.exit_code == 2
    assert left_behind(tmp_path) == []

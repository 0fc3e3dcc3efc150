"""From a checkpoint that sees to a package: captioners, image classifiers, and how images become pixels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import transformers
from PIL import Image

from regard.manifest import Task, load_package
from regard.vision.codec import ImageCodec
from regard_export.errors import CheckpointError, ExportError
from regard_export.images import describe, read_processor, with_grid
from regard_export.package import Options, export

from .checkpoints import save_captioner, save_image_classifier, save_processor

TAPS = {f"{kind}.{layer}" for kind in ("encoder.self", "decoder.self", "decoder.cross") for layer in range(2)}
REDUCED_TAPS = {f"encoder.self.{layer}.{reduction}" for layer in range(2) for reduction in ("mean", "max")}


@pytest.fixture(scope="module")
def captioner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random captioner's checkpoint: ViT and GPT-2."""
    return save_captioner(tmp_path_factory.mktemp("captioner") / "tiny")


def test_a_captioner_becomes_a_package_that_says_everything(captioner: Path, tmp_path: Path) -> None:
    """Pixels in, words out: fused attention in both graphs, taps of all kinds, the image's patches."""
    manifest = load_package(export(captioner, tmp_path, Options(name="tiny"))).manifest
    encoder, step = manifest.graphs["encoder"], manifest.graphs["step"]
    assert (manifest.task, manifest.source.architecture) == (Task.CAPTIONING, "VisionEncoderDecoderModel")
    assert [(tensor.name, tensor.shape) for tensor in encoder.inputs] == [
        ("pixel_values", ("R", 3, 16, 24)),
        ("self_tap_rows", ("A",)),
        ("self_mean_rows", ("B",)),
        ("self_max_rows", ("C",)),
    ]
    assert "source_length" not in {tensor.name for tensor in step.inputs}
    assert encoder.operators["com.microsoft::MultiHeadAttention"] == 2
    assert step.operators["com.microsoft::GroupQueryAttention"] == 2
    assert step.operators["com.microsoft::MultiHeadAttention"] == 2
    assert {tap.name for tap in manifest.taps} == TAPS
    assert manifest.text is not None
    assert manifest.text.max_source_tokens is None
    assert manifest.image is not None
    assert (manifest.image.leading, manifest.image.patch_rows, manifest.image.patch_columns) == (("[CLS]",), 4, 6)
    assert manifest.generation is not None
    assert manifest.generation.max_target_tokens == 47


def test_a_captioners_proof_compares_tokens_and_every_map(captioner: Path, tmp_path: Path) -> None:
    """In int8, too, whose figures are reported and not judged."""
    for precision, tolerance in (("fp32", 1e-4), ("int8", None)):
        directory = export(captioner, tmp_path, Options(name=precision, precision=precision))
        report = json.loads((directory / "parity.json").read_text())
        assert report["tolerance"] == tolerance
        assert report["max_abs_difference"].keys() == TAPS | REDUCED_TAPS | {"logits", "log_sum_exp"}
        assert report["greedy_tokens_compared"] > 20
    assert max(report["max_abs_difference"].values()) > 1e-4
    step = load_package(tmp_path / "int8" / "1").manifest.graphs["step"].operators
    assert step["MatMulInteger"] + step["com.microsoft::MatMulIntegerToFloat"] == 13
    assert "MatMul" not in step


def test_an_image_classifier_becomes_a_package_without_text(tmp_path: Path) -> None:
    """One graph that reads pixels, with fused attention, labels and no tokenizer."""
    checkpoint = save_image_classifier(tmp_path / "checkpoint")
    directory = export(checkpoint, tmp_path / "models", Options(name="tiny"))
    manifest = load_package(directory).manifest
    assert (manifest.task, manifest.text) == (Task.CLASSIFICATION, None)
    assert manifest.classification is not None
    assert len(manifest.classification.labels) == 3
    assert manifest.graphs["classifier"].operators["com.microsoft::MultiHeadAttention"] == 2
    assert not (directory / "tokenizer.json").exists()


@pytest.mark.parametrize(
    ("kind", "settings", "resize", "crop"),
    [
        ("ViT", {"size": {"height": 30, "width": 40}}, (30, 40), None),
        ("DeiT", {"size": {"height": 40, "width": 40}, "crop_size": {"height": 32, "width": 32}}, (40, 40), (32, 32)),
        ("CLIP", {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}, 32, (32, 32)),
        ("Bit", {"size": {"shortest_edge": 33}, "crop_size": {"height": 40, "width": 40}}, 33, (40, 40)),
        ("Blip", {"size": {"height": 32, "width": 32}}, (32, 32), None),
        ("Beit", {"size": {"height": 32, "width": 32}, "resample": 0}, (32, 32), None),
        ("ViT", {"do_resize": True, "do_normalize": False, "do_rescale": False}, (16, 24), None),
    ],
)
def test_an_image_processor_is_described_exactly(
    kind: str, settings: dict[str, object], resize: object, crop: object, tmp_path: Path
) -> None:
    """Its description, carried out on images of several sizes, gives its pixels."""
    spec = describe(read_processor(save_processor(tmp_path, kind, **settings)))
    assert (spec.resize, spec.crop) == (resize, crop)


@pytest.mark.parametrize(("width", "height"), [(197, 239), (160, 371), (333, 500), (640, 480), (30, 41)])
def test_a_served_picture_has_the_processor_s_pixels(width: int, height: int, tmp_path: Path) -> None:
    """Hard edges show what is rounded between the directions of a bicubic resize; a level apart at most."""
    settings = {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}, "resample": 3}
    processor = read_processor(save_processor(tmp_path, "CLIP", **settings))
    spec = describe(processor)
    levels = np.random.default_rng(0).integers(0, 2, (height // 3 + 1, width // 3 + 1, 3), np.uint8) * 255
    picture = Image.fromarray(levels.repeat(3, axis=0).repeat(3, axis=1)[:height, :width])
    ours = ImageCodec(spec).prepare(picture).pixel_values
    theirs = np.asarray(processor(picture, return_tensors="np")["pixel_values"])[0]
    level = spec.rescale_factor / np.array(spec.std)[:, None, None]
    assert (np.abs(ours - theirs) / level).max() < 1.01


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("ViT", {"size": {"shortest_edge": 32}}, "images of varying sizes"),
        ("ViT", {"size": {"shortest_edge": 32, "longest_edge": 64}}, "size as longest_edge, shortest_edge"),
        ("Levit", {"size": {"shortest_edge": 32}}, "does more than its settings say"),
    ],
)
def test_an_image_processor_that_cannot_be_described_is_refused(
    kind: str, settings: dict[str, object], message: str, tmp_path: Path
) -> None:
    """Rather than served with pixels that the model never saw."""
    with pytest.raises(CheckpointError, match=message):
        describe(read_processor(save_processor(tmp_path, kind, **settings)))


@pytest.mark.parametrize(
    ("positions", "leading", "grid"),
    [(24, 0, (4, 6)), (25, 1, (4, 6)), (26, 2, (4, 6)), (29, 5, (4, 6)), (6, 0, (2, 3))],
)
def test_source_positions_are_laid_out_over_the_image(
    positions: int, leading: int, grid: tuple[int, int], tmp_path: Path
) -> None:
    """Patches of the image behind their special positions; merged patches are larger."""
    spec = with_grid(describe(read_processor(save_processor(tmp_path))), positions, patch_size=4)
    assert (len(spec.leading), (spec.patch_rows, spec.patch_columns)) == (leading, grid)


def test_a_processor_of_another_size_than_the_models_is_refused(tmp_path: Path) -> None:
    """The error names both the file and the size."""
    checkpoint = save_processor(save_image_classifier(tmp_path / "checkpoint"), size={"height": 32, "width": 32})
    with pytest.raises(ExportError, match=r"preprocessor_config.json makes images of 32 by 32"):
        export(checkpoint, tmp_path / "models", Options(name="tiny"))


def test_a_weight_that_the_answer_needs_may_not_be_missing(tmp_path: Path) -> None:
    """An unread pooling layer may; a layer's query may not."""
    checkpoint = save_image_classifier(tmp_path / "checkpoint")
    model = transformers.ViTForImageClassification.from_pretrained(checkpoint)
    weights = model.state_dict()
    kept = {name: weight for name, weight in weights.items() if "attention.q" not in name}
    assert len(kept) < len(weights)
    model.save_pretrained(checkpoint, state_dict=kept)
    with pytest.raises(ExportError, match=r"model.safetensors lacks \d+ weights"):
        export(checkpoint, tmp_path / "models", Options(name="tiny"))

"""Every family that the export knows: random checkpoints of real classes, equal to their eager selves."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import transformers

from regard.engine.asked import Asked
from regard.manifest import Manifest, Task, load_package
from regard_export.checkpoint import load_checkpoint
from regard_export.errors import CheckpointError
from regard_export.families.proven import PROVEN
from regard_export.families.siglip import Siglip
from regard_export.languages import ANY_LANGUAGES, Languages
from regard_export.package import Options, export

from .checkpoints import (
    SWIN_SIZES,
    save_classifier,
    save_clip,
    save_image_classifier,
    save_siglip,
    save_siglip_classifier,
)
from .families import CAPTIONERS, IMAGE_CLASSIFIERS, LANGUAGES, TEXT_CLASSIFIERS, TRANSLATORS, Save

LAYERS = 2
ELSEWHERE = {"Marian", "ViT", "ViT and GPT-2", "GIT"}
"""Families with a file of their own: `test_package.py`, `test_images.py`, `test_prefill.py`."""


def here(names: Iterable[str]) -> list[str]:
    """Return the families that are exported in this file."""
    return [name for name in names if name not in ELSEWHERE]


def exported(save: Save, at: Path, languages: Languages = ANY_LANGUAGES) -> tuple[Manifest, dict[str, Any]]:
    """Export a checkpoint; return the package's manifest and its parity report."""
    directory = export(save(at / "checkpoint"), at / "models", Options(name="tiny", languages=languages))
    return load_package(directory).manifest, json.loads((directory / "parity.json").read_text())


def test_regard_export_lists_what_is_exported_here() -> None:
    """Every family of a task, and no other."""
    classes = {kind.lower(): kind for kind in dir(transformers) if kind.endswith("Config")}

    def model_types(kinds: Iterable[str]) -> set[str]:
        return {getattr(transformers, classes[f"{kind}config".lower()]).model_type for kind in kinds}

    assert set(PROVEN[Task.TRANSLATION]) == model_types(TRANSLATORS)
    assert set(PROVEN[Task.CAPTIONING]) == {"vision-encoder-decoder", "blip", "git"}
    assert set(PROVEN[Task.COMPLETION]) == {"gpt2", "opt", "llama", "mistral", "qwen2", "qwen3", "gemma3_text"}
    assert set(PROVEN[Task.CLASSIFICATION]) == model_types([*TEXT_CLASSIFIERS, *IMAGE_CLASSIFIERS, "Siglip"])
    assert (
        set(PROVEN[Task.TOKEN_CLASSIFICATION]) == set(PROVEN[Task.QUESTION_ANSWERING]) == model_types(TEXT_CLASSIFIERS)
    )
    assert set(PROVEN[Task.SIMILARITY]) == {"clip", "siglip"}


def names(*kinds: str) -> set[str]:
    """Return the names of the taps of both layers."""
    return {f"{kind}.{layer}" for kind in kinds for layer in range(LAYERS)}


def attentions(operators: dict[str, int]) -> int:
    """Return how many fused operators attend within a source: ONNX' own, or ONNX Runtime's if no key is left out."""
    return operators.get("Attention", 0) + operators.get("com.microsoft::MultiHeadAttention", 0)


def check(report: dict[str, Any], compared: set[str]) -> None:
    """Everything was compared, heads that the graph puts together as well, and all of it is equal."""
    differences = report["max_abs_difference"]
    reduced = {f"{tap}.{word}" for tap in compared if "encoder.self" in tap for word in ("mean", "max")}
    assert differences.keys() == compared | reduced
    assert 0 < max(differences.values()) < 1e-4
    assert report["greedy_tokens_different"] == 0


def check_generator(manifest: Manifest, report: dict[str, Any], *, encoder_taps: bool = True) -> None:
    """The step attends with one fused operator a layer and kind; tokens and every map were compared."""
    step = manifest.graphs["step"].operators
    assert step["com.microsoft::GroupQueryAttention"] == LAYERS
    assert step["com.microsoft::MultiHeadAttention"] == LAYERS
    assert attentions(manifest.graphs["encoder"].operators) >= LAYERS
    taps = names("decoder.self", "decoder.cross") | (names("encoder.self") if encoder_taps else set())
    assert {tap.name for tap in manifest.taps} == taps
    check(report, taps | {"logits", "log_sum_exp"})
    assert report["greedy_tokens_compared"] > 20


@pytest.mark.parametrize("name", here(TRANSLATORS))
def test_a_translator_equals_its_eager_model(name: str, tmp_path: Path) -> None:
    """Greedy tokens, logits and every map; the residual connections stay apart from their norms."""
    manifest, report = exported(TRANSLATORS[name], tmp_path, LANGUAGES.get(name, ANY_LANGUAGES))
    assert manifest.task is Task.TRANSLATION
    check_generator(manifest, report)
    assert not any("Skip" in operator for operator in manifest.graphs["step"].optimized_operators)


@pytest.mark.parametrize("model_class", here(TEXT_CLASSIFIERS))
def test_a_text_classifier_equals_its_eager_model(model_class: str, tmp_path: Path) -> None:
    """One graph with fused attention, its labels, and every map."""
    sizes = TEXT_CLASSIFIERS[model_class]
    manifest, report = exported(lambda at: save_classifier(at, model_class, **sizes), tmp_path)
    assert manifest.classification is not None
    assert manifest.classification.labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    assert attentions(manifest.graphs["classifier"].operators) == LAYERS
    check(report, names("encoder.self") | {"logits"})


@pytest.mark.parametrize("model_class", here(IMAGE_CLASSIFIERS))
def test_an_image_classifier_equals_its_eager_model(model_class: str, tmp_path: Path) -> None:
    """One graph with fused attention that reads what an engine feeds, and every map; an image's windows have none."""
    sizes = IMAGE_CLASSIFIERS[model_class]
    manifest, report = exported(lambda at: save_image_classifier(at, model_class, **sizes), tmp_path)
    windows = model_class == "Swin"
    assert attentions(manifest.graphs["classifier"].operators) == (sum(SWIN_SIZES["depths"]) if windows else LAYERS)
    fed = Asked.of(manifest, "classifier", [frozenset()]).feeds
    assert {tensor.name for tensor in manifest.graphs["classifier"].inputs} == {"pixel_values", *fed}
    check(report, (set() if windows else names("encoder.self")) | {"logits"})


def test_a_hidden_padding_is_refused_where_the_model_reads_it(tmp_path: Path) -> None:
    """SigLIP's embedding of a text changes with what is behind the text, and so with a mask of that."""
    checkpoint = save_siglip(tmp_path / "siglip", model_input_names=["input_ids", "attention_mask"])
    with pytest.raises(CheckpointError, match="model_input_names to"):
        load_checkpoint(checkpoint, ANY_LANGUAGES)


def test_an_unknown_model_that_reads_padding_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would need to be padded as its family says, and there is none."""
    monkeypatch.setattr(Siglip, "reads_padding", False)
    with pytest.raises(CheckpointError, match="padded to one length"):
        load_checkpoint(save_siglip(tmp_path / "siglip"), ANY_LANGUAGES)


def test_a_regression_is_refused(tmp_path: Path) -> None:
    """It has a number to tell, and no classes."""
    checkpoint = save_classifier(tmp_path / "stars", num_labels=1, problem_type="regression")
    with pytest.raises(CheckpointError, match="problem_type is regression"):
        load_checkpoint(checkpoint, ANY_LANGUAGES)


@pytest.mark.parametrize(
    ("model_class", "head", "outputs"),
    [("DebertaV2", "TokenClassification", 3), ("Albert", "QuestionAnswering", 2)],
    ids=["tokens' classes", "ends of an answer"],
)
def test_a_head_over_every_token_equals_its_eager_model(
    model_class: str, head: str, outputs: int, tmp_path: Path
) -> None:
    """The same graph as a text classifier's, with logits for every token."""
    sizes = TEXT_CLASSIFIERS[model_class]
    manifest, report = exported(lambda at: save_classifier(at, model_class, head, **sizes), tmp_path)
    graph = manifest.graphs["classifier"]
    assert attentions(graph.operators) == LAYERS
    assert next(tensor.shape for tensor in graph.outputs if tensor.name == "logits") == ("R", "S", outputs)
    check(report, names("encoder.self") | {"logits"})


def test_clip_equals_its_eager_model_by_the_old_rule_for_the_end(tmp_path: Path) -> None:
    """Two graphs give embeddings of length 1 and every map; the text's is that of its largest token."""
    manifest, report = exported(lambda at: save_clip(at, eos_token_id=2), tmp_path)
    assert manifest.task is Task.SIMILARITY
    for tower in ("text_encoder", "image_encoder"):
        assert attentions(manifest.graphs[tower].operators) == LAYERS
    assert manifest.similarity is not None
    assert (manifest.similarity.embedding_size, manifest.similarity.probabilities) == (16, "softmax")
    check(report, names("text_encoder.self", "image_encoder.self") | {"embeddings"})


@pytest.mark.parametrize("side", ["left", "right"])
def test_siglip_equals_its_eager_model(side: str, tmp_path: Path) -> None:
    """Texts come padded on their side; an image's last map is that of the query which pools it, as PyTorch has it."""
    manifest, report = exported(lambda at: save_siglip(at, padding_side=side), tmp_path)
    towers = [manifest.graphs[tower] for tower in ("text_encoder", "image_encoder")]
    assert [attentions(tower.operators) for tower in towers] == [LAYERS, LAYERS + 1]
    assert "source_length" not in {tensor.name for tensor in towers[0].inputs}
    assert manifest.text is not None and manifest.image is not None and manifest.similarity is not None
    assert (manifest.text.padded_to, manifest.text.max_source_tokens) == (side, 64)
    assert manifest.image.leading == ("[POOL]",)
    assert manifest.similarity.probabilities == "sigmoid"
    check(report, {*names("text_encoder.self", "image_encoder.self"), f"image_encoder.self.{LAYERS}", "embeddings"})


def test_a_siglip_classifier_equals_its_eager_model(tmp_path: Path) -> None:
    """It takes the mean of the patches: nothing pools them."""
    manifest, report = exported(save_siglip_classifier, tmp_path)
    assert attentions(manifest.graphs["classifier"].operators) == LAYERS
    assert manifest.image is not None and manifest.image.leading == ()
    check(report, names("encoder.self") | {"logits"})


@pytest.mark.parametrize("name", here(CAPTIONERS))
def test_a_captioner_equals_its_eager_model(name: str, tmp_path: Path) -> None:
    """Greedy tokens, logits and every map over the patches."""
    manifest, report = exported(CAPTIONERS[name], tmp_path)
    assert manifest.task is Task.CAPTIONING
    assert manifest.image is not None
    assert manifest.image.patch_rows > 1
    check_generator(manifest, report, encoder_taps="Swin" not in name)

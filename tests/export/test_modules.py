"""Modules of one's own: what becomes a package, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from regard.manifest import Task, load_package
from regard_export import classics
from regard_export.errors import CheckpointError, ExportError, ParityError
from regard_export.modules import Blueprint, Classified, export_module
from regard_export.package import Options

from .blueprints import (
    CLASSICS,
    LABELS,
    POSITIONS,
    VOCABULARY,
    captioner,
    text_classifier,
    tokenizer,
    translator,
)

ROOT = Path(__file__).parents[2]


class Drifting(torch.nn.Module):
    """A classifier that sees a row's padding: its scores change with the batch that it is in."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(VOCABULARY, 3)

    def classify(self, source: torch.Tensor, source_length: torch.Tensor | None) -> Classified:
        """Return the mean over all positions, real or not."""
        positions = source.shape[1]
        weights = torch.full((source.shape[0], 1, positions, positions), 1.0) / positions
        return Classified(self.embedding(source).mean(1), (weights,))


def test_a_module_that_sees_padding_gets_no_package(tmp_path: Path) -> None:
    """Its rows alone don't equal its rows in a batch, and nothing is written."""
    with pytest.raises(ParityError, match="differs"):
        export_module(text_classifier(Drifting()), tmp_path / "models", Options(name="drifting"))
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: text_classifier(torch.nn.Linear(1, 1)), "neither `classify` nor `encode` and `step`"),
        (lambda: Blueprint(Drifting(), tokenizer(), labels=LABELS), "give `image` .* or `max_source_tokens`"),
        (lambda: Blueprint(Drifting(), None, POSITIONS, labels=LABELS), "give its `tokenizer`"),
        (lambda: Blueprint(Drifting(), tokenizer(), POSITIONS), "`labels` for what names classes"),
    ],
)
def test_a_blueprint_that_lacks_a_part_says_which(make: Callable[[], Blueprint], message: str) -> None:
    """Nothing is traced."""
    with pytest.raises(CheckpointError, match=message):
        make()


def test_a_module_is_exported_in_fp32_only(tmp_path: Path) -> None:
    """Another precision is refused."""
    with pytest.raises(ExportError, match="in fp32, for cpu or portable, not in int8"):
        export_module(CLASSICS["policy"](), tmp_path, Options(name="policy", precision="int8"))


class Looking(torch.nn.Module):
    """A classifier whose table of vectors is no embedding to PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Parameter(torch.zeros(VOCABULARY - 1, 3))

    def classify(self, source: torch.Tensor, source_length: torch.Tensor | None) -> Classified:
        """Return the first token's vector."""
        return Classified(self.table[source[:, 0]], ())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: text_classifier(classics.LocalTransformer(40, 3, window=2, positions=128)),
            "tokens go up to 59 ('w59'), but its embedding embedding has 40 rows, for tokens up to 39",
        ),
        (
            lambda: translator(classics.AdditiveTranslator(40, 24, 32)),
            "tokens go up to 59 ('w59'), but its embedding encoder.embedding has 40 rows",
        ),
        (
            lambda: captioner(classics.ShowAttendTell(40, width=24)),
            "generation.vocabulary_size is 60, but its embedding embedding has 40 rows, for tokens up to 39",
        ),
        (
            lambda: text_classifier(Looking()),
            "tokens go up to 59 ('w59'), which it has no place for (index 59 is out of bounds",
        ),
    ],
)
def test_tokens_without_an_embedding_are_refused(tmp_path: Path, make: Callable[[], Blueprint], words: str) -> None:
    """The message has the largest token and the embedding with its size, and nothing is written."""
    with pytest.raises(ExportError, match=re.escape(words)):
        export_module(make(), tmp_path / "models", Options(name="short"))
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("unread", [{"taps": False}, {"interventions": True}, {"activation_scale": "token"}])
def test_a_module_s_export_ignores_no_option(tmp_path: Path, unread: dict[str, Any]) -> None:
    """What a module can't be given is refused."""
    with pytest.raises(ExportError, match="only name, version, target and overwrite can be chosen"):
        export_module(CLASSICS["policy"](), tmp_path, Options(name="policy", **unread))


def test_the_readme_s_module_is_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The code that the README shows runs as it stands, and leaves a package of a classifier."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.S)
    (code,) = (block for block in blocks if "export_module" in block)
    tokenizer().save(str(tmp_path / "tokenizer.json"))
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    package = load_package(next((tmp_path / "models").glob("*/1")))
    assert package.manifest.task is Task.CLASSIFICATION
    assert [tap.name for tap in package.manifest.taps] == ["encoder.self.0"]

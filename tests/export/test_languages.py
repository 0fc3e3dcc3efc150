"""Which languages a package of a multilingual translator speaks."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer

from regard_export.checkpoint import load_checkpoint
from regard_export.errors import CheckpointError
from regard_export.languages import ANY_LANGUAGES, Languages

from .checkpoints import save_multilingual_translator, save_translator

ENGLISH, FRENCH, GERMAN = 9, 10, 11


@pytest.fixture(scope="module")
def multilingual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random checkpoint with a tokenizer of three languages."""
    return save_multilingual_translator(tmp_path_factory.mktemp("multilingual") / "tiny")


def test_a_package_marks_its_source_and_begins_with_its_target(multilingual: Path) -> None:
    """The tokenizer writes the source's mark, and the first token is the target's."""
    checkpoint = load_checkpoint(multilingual, Languages("deu_Latn", "fra_Latn"))
    assert checkpoint.generation is not None
    assert checkpoint.generation.forced_bos_token_id == FRENCH
    assert Tokenizer.from_str(checkpoint.tokenizer_files["tokenizer.json"]).encode("a b").ids[0] == GERMAN


def test_the_source_is_the_checkpoints_own_if_only_the_target_is_chosen(multilingual: Path) -> None:
    """The tokenizer's file is taken as it is."""
    checkpoint = load_checkpoint(multilingual, Languages(None, "deu_Latn"))
    assert checkpoint.tokenizer_files["tokenizer.json"] == (multilingual / "tokenizer.json").read_text()
    assert Tokenizer.from_str(checkpoint.tokenizer_files["tokenizer.json"]).encode("a b").ids[0] == ENGLISH


@pytest.mark.parametrize(
    ("languages", "message"),
    [
        (ANY_LANGUAGES, "choose with --source-language and --target-language, such as eng_Latn, fra_Latn, deu_Latn"),
        (Languages("xx", "fra_Latn"), "--source-language: the tokenizer knows no language 'xx'"),
        (Languages("eng_Latn", "</s>"), "--target-language: the tokenizer knows no language '</s>'"),
    ],
)
def test_a_multilingual_translator_needs_languages_that_it_knows(
    languages: Languages, message: str, multilingual: Path
) -> None:
    """The error names some."""
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(multilingual, languages)


def test_a_translator_of_one_pair_takes_no_languages(tmp_path: Path) -> None:
    """Its tokenizer could not mark them."""
    with pytest.raises(CheckpointError, match="knows of no languages"):
        load_checkpoint(save_translator(tmp_path / "tiny"), Languages(None, "fra_Latn"))

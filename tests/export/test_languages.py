"""Which languages a package of a multilingual translator speaks."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from regard.errors import InvalidInputError
from regard.manifest import Task
from regard.rpc.options import search_of
from regard.text.codec import TextCodec
from regard.v1 import generation_pb2
from regard_export.checkpoint import load_checkpoint
from regard_export.errors import CheckpointError
from regard_export.languages import ANY_LANGUAGES, Languages

from ..unit.packages import manifest_of, package_of, unigram  # noqa: TID252 - tests are no package of sys.path
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


@pytest.mark.parametrize(
    "kind", ["mbart50.tokenization_mbart50", "m2m_100.tokenization_m2m_100", "nllb.tokenization_nllb"]
)
def test_the_service_takes_every_language_of_transformers(kind: str, tmp_path: Path) -> None:
    """The tokens of mBART, M2M100 and NLLB are languages; those that stand beside them as special ones are none."""
    codes = importlib.import_module(f"transformers.models.{kind}").FAIRSEQ_LANGUAGE_CODES
    languages = [f"__{code}__" for code in codes["m2m100"]] if isinstance(codes, dict) else list(codes)
    tokenizer = unigram()
    tokenizer.add_special_tokens([*languages, "<s>", "<mask>"])
    manifest = manifest_of(Task.TRANSLATION)
    assert manifest.generation is not None and len(languages) > 50
    spec = manifest.generation.model_copy(update={"vocabulary_size": tokenizer.get_vocab_size()})
    codec = TextCodec(package_of(tmp_path, tokenizer, manifest))

    def forced(language: str) -> int | None:
        message = generation_pb2.GenerationOptions(target_language=language)
        return search_of(message, spec, codec, streaming=False, fixed={}).behind().forced_bos_token_id

    assert [forced(language) for language in languages] == list(map(tokenizer.token_to_id, languages))
    for other in ("<s>", "<mask>"):
        with pytest.raises(InvalidInputError, match="target_language is"):
            forced(other)

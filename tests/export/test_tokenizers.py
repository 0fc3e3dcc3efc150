"""Every kind of tokenizer, as the service reads it, beside the one that Transformers loads."""

# ruff: noqa: RUF001 (some texts have what looks like other letters)

from __future__ import annotations

import json
import random
import shutil
import string
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer
from transformers import Siglip2Tokenizer, SiglipTokenizer
from typer.testing import CliRunner

from regard.manifest import Manifest, Package, SourceSpec, Task, TextSpec, load_package
from regard.text.codec import TextCodec
from regard.text.detokenizer import Vocabulary
from regard.text.stops import StopStrings
from regard_export.alignment.bitext import read_bitext
from regard_export.alignment.forcing import Forcer
from regard_export.checkpoint import load_checkpoint
from regard_export.cli import app
from regard_export.errors import CheckpointError
from regard_export.languages import ANY_LANGUAGES, Languages
from regard_export.package import Options, export
from regard_export.tokenization import TOKENIZER_FILE, load_tokenizer, tokenizer_files
from regard_export.tokenization.proof import CORPUS, cut

from .checkpoints import save_classifier, save_fsmt, save_translator
from .vocabularies import (
    LANGUAGE_CODES,
    PAD,
    save_byte_level,
    save_m2m100,
    save_marian,
    save_plain_words,
    save_unigram,
    save_word_piece,
)

LATIN = "The quick fox Élève où ça naïve Größe Straße tiếng Việt Nam ệ ﬁne ½ ① Ａ … ’ “ — 12,345.67 don't a z"
OTHERS = "Привет мир 日本語 漢字 한국어 😀 👩‍👩‍👧 👍🏽 🇫🇷 שלום مرحبا नमस्ते สวัสดี \x01 \u200b \u00ad ▁ ▁the"
SPECIAL = "</s> <unk> <pad> <s> [SEP] <|endoftext|> __en__"
WORDS = f"{LATIN} {OTHERS} {SPECIAL}".split(" ")


def save_gpt2(directory: Path) -> Path:
    """Write GPT-2's kind of byte-level vocabulary."""
    return save_byte_level(directory, "GPT2Tokenizer")


def save_m2m100_unigram(directory: Path) -> Path:
    """Write an M2M100 vocabulary around a unigram model."""
    return save_m2m100(directory, "unigram")


def save_mbart(directory: Path) -> Path:
    """Write mBART's kind of SentencePiece model."""
    return save_unigram(directory, "MBartTokenizer", "sentencepiece.bpe.model")


def save_xlm_roberta(directory: Path) -> Path:
    """Write XLM-RoBERTa's kind of SentencePiece model."""
    return save_unigram(directory, "XLMRobertaTokenizer", "sentencepiece.bpe.model")


SAVES = [
    save_marian,
    save_m2m100,
    save_m2m100_unigram,
    save_unigram,
    save_mbart,
    save_xlm_roberta,
    save_plain_words,
    save_word_piece,
    save_byte_level,
    save_gpt2,
]


class Side:
    """A tokenizer as Transformers loads it, and the same as the service does."""

    def __init__(self, checkpoint: Path, package: Path) -> None:
        self.theirs: Any = load_tokenizer(checkpoint)
        self.files = tokenizer_files(checkpoint, self.theirs, marked=False)
        for name, content in self.files.contents.items():
            (package / name).write_text(content, "utf-8")
        text = TextSpec(
            tokenizer_file=TOKENIZER_FILE,
            max_source_tokens=2000,
            pad_token_id=0,
            source_pieces_file=self.files.source_pieces,
            target_pieces_file=self.files.target_pieces,
        )
        self.codec = TextCodec(Package(package, manifest_of(text), "0" * 64))

    def ids(self, text: str) -> list[int]:
        """Return the tokens of Transformers, which is told to take special tokens for text."""
        return list(self.theirs(text, split_special_tokens=True).input_ids)


def manifest_of(text: TextSpec) -> Manifest:
    """Return the manifest of a package that holds a tokenizer and nothing else."""
    return Manifest(
        format_version=2,
        name="tiny",
        version="1",
        task=Task.TRANSLATION,
        target="cpu",
        precision="fp32",
        source=SourceSpec(architecture="Tiny", model_type="tiny", weights_sha256="0" * 64),
        graphs={},
        taps=(),
        state=(),
        cross_state=(),
        text=text,
        image=None,
        generation=None,
        classification=None,
        exported_with={},
        files={},
    )


@pytest.fixture(scope="module", params=SAVES, ids=lambda save: save.__name__.removeprefix("save_"))
def side(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Side:
    """A tokenizer of every kind."""
    save: Callable[[Path], Path] = request.param
    return Side(save(tmp_path_factory.mktemp("vocabulary") / "tiny"), tmp_path_factory.mktemp("package"))


def texts(count: int) -> list[str]:
    """Return texts of words of many scripts, composed, decomposed and in capitals, set apart in several ways."""
    choice = random.Random(3)
    forms: list[Callable[[str], str]] = [
        str,
        str,
        str.upper,
        lambda text: unicodedata.normalize("NFD", text),
        lambda text: unicodedata.normalize("NFKD", text),
    ]
    return [
        choice.choice(forms)(choice.choice([" ", " ", "", "  ", "\t", "\r\n"]).join(choice.choices(WORDS, k=8)))
        for _ in range(count)
    ]


@pytest.mark.parametrize("text", [text for text in CORPUS if text.strip()], ids=lambda text: ascii(text)[:20])
def test_tokens_are_those_of_transformers(side: Side, text: str) -> None:
    """Accents, scripts, emoji, control characters, white space and long words are cut to the same ids."""
    assert side.codec.encode(text, truncate=False, field="text").token_ids.tolist() == side.ids(text)


def test_tokens_of_any_text_are_those_of_transformers(side: Side) -> None:
    """So are those of 300 texts put together by chance, but that special tokens are never made of text."""
    special = set(side.theirs.all_special_ids) - {side.theirs.unk_token_id}
    for text in texts(300):
        encoded = side.codec.encode(text, truncate=False, field="text")
        ids = encoded.token_ids.tolist()
        written = [index for index, segment in enumerate(encoded.segments) if not segment.special]
        assert not special & {ids[index] for index in written}, text
        expected = side.ids(text)
        taken = {index for index in written if expected[index] in special}  # as Unigram itself may do
        assert [i for at, i in enumerate(ids) if at not in taken] == [
            i for at, i in enumerate(expected) if at not in taken
        ], text


def test_the_empty_text_has_the_same_tokens(side: Side) -> None:
    """The service refuses it, but the tokenizer itself agrees on it."""
    contents = side.files.contents
    pieces = side.files.source_pieces
    cutter = Tokenizer.from_str(contents[pieces]) if pieces else None
    assert cut(Tokenizer.from_str(contents[TOKENIZER_FILE]), cutter, "") == side.ids("")


def test_texts_are_those_of_transformers(side: Side) -> None:
    """Any tokens, those of texts and those drawn by chance, are the same text, at once and one by one."""
    choice = random.Random(5)
    known = [i for i in range(len(side.theirs)) if i not in side.theirs.all_special_ids]
    drawn = [choice.choices(known, k=choice.randint(1, 30)) for _ in range(200)]
    for token_ids in [*map(side.ids, CORPUS), *drawn]:
        expected = side.theirs.decode(token_ids, skip_special_tokens=True)
        assert side.codec.decode(token_ids) == expected
        detokenizer = side.codec.detokenizer()
        assert "".join(map(detokenizer.push, token_ids)) + detokenizer.finish() == expected


def test_offsets_are_those_of_the_callers_characters(side: Side) -> None:
    """Segments follow one another, and cover every character that the model can see."""
    text = "The 😀 cafe\u0301,  naïve\tﬁne 漢字 x"
    segments = side.codec.encode(text, truncate=False, field="text").segments
    starts = [segment.start for segment in segments if not segment.special]
    assert starts == sorted(starts)
    covered = {place for segment in segments for place in range(segment.start, segment.end)}
    unseen = string.punctuation if isinstance(side.theirs, SiglipTokenizer) else ""
    seen = {place for place, character in enumerate(text) if not character.isspace() and character not in unseen}
    assert covered == seen


def test_a_prefix_of_the_output_is_cut_as_a_target(side: Side) -> None:
    """Marian has a model for each language; elsewhere it is the same one."""
    text = "Bonjour, le monde"
    expected = side.theirs(text_target=text, add_special_tokens=False).input_ids
    assert side.codec.pieces(text) == list(expected)


@pytest.fixture(scope="module")
def marian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Marian translator in the files of an opus-mt checkpoint."""
    directory = save_marian(tmp_path_factory.mktemp("marian") / "tiny")
    vocabulary = json.loads((directory / "vocab.json").read_text())
    save_translator(directory, vocab_size=len(vocabulary))
    (directory / TOKENIZER_FILE).unlink()
    return save_marian(directory)


@pytest.fixture(scope="module")
def marian_package(marian: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its package."""
    return export(marian, tmp_path_factory.mktemp("models"), Options(name="tiny"))


def test_a_marian_checkpoint_becomes_a_package(marian: Path, marian_package: Path) -> None:
    """It holds a vocabulary and a cutter for each language."""
    package = load_package(marian_package)
    text = package.manifest.text
    assert text is not None
    assert (text.source_pieces_file, text.target_pieces_file) == ("source_pieces.json", "target_pieces.json")
    assert {"tokenizer.json", "source_pieces.json", "target_pieces.json"} <= package.manifest.files.keys()
    assert (text.pad_token_id, text.max_source_tokens) == (PAD, 90)
    theirs = load_tokenizer(marian)
    encoded = TextCodec(package).encode("Hello, world!", truncate=False, field="text")
    assert encoded.token_ids.tolist() == theirs("Hello, world!").input_ids


def test_a_translator_is_calibrated_on_the_service_s_tokens(marian_package: Path, tmp_path: Path) -> None:
    """What the vocabulary doesn't know is its unknown token, in sources and in targets."""
    package, bitext = load_package(marian_package), tmp_path / "bitext.tsv"
    bitext.write_text("Hello 漢字\t漢字\n")
    codec, forcer = TextCodec(package), Forcer(package.directory, package.manifest)
    ids = codec.encode("Hello 漢字", truncate=False, field="text").token_ids.tolist()
    (forced,) = forcer.force([ids], [[*codec.pieces("漢字"), ids[-1]]])
    (weights,) = forcer.weights(read_bitext(bitext))
    made = np.concatenate([*forced.taps.values()])[:, :-1, :-1]  # ends of sentences are of no word
    np.testing.assert_allclose(weights[::2].sum(axis=(1, 2)), made.sum(axis=2).mean(axis=1), atol=1e-5)


def test_a_translator_is_verified_with_its_own_settings_alone(
    marian: Path, marian_package: Path, tmp_path: Path
) -> None:
    """It equals the checkpoint that it was made from, and is not compared with one of other settings."""
    same = CliRunner().invoke(app, ["verify", str(marian_package), "--against", str(marian)])
    assert same.exit_code == 0, same.output
    assert "greedy tokens that differ" in same.stdout
    other = Path(shutil.copytree(marian, tmp_path / "other"))
    settings = json.loads((other / "generation_config.json").read_text())
    (other / "generation_config.json").write_text(json.dumps(settings | {"num_beams": 3}))
    differs = CliRunner().invoke(app, ["verify", str(marian_package), "--against", str(other)])
    assert differs.exit_code == 2
    assert "made with other settings or languages" in " ".join(differs.stderr.split())


def test_a_language_code_in_front_chooses_the_target(marian: Path, tmp_path: Path) -> None:
    """As Transformers has it, `>>fra<<` is one token, and the text behind it begins anew."""
    side = Side(marian, tmp_path)
    for code in LANGUAGE_CODES:
        for text in (f"{code} Hello", f"{code}Hello"):
            encoded = side.codec.encode(text, truncate=False, field="text")
            assert encoded.token_ids.tolist() == side.ids(text)
            assert (encoded.segments[0].text, encoded.segments[0].special) == (code, False)


@pytest.mark.parametrize(("source", "mark"), [(None, "__en__"), ("de", "__de__")])
def test_m2m100_marks_its_source_and_begins_with_its_target(source: str | None, mark: str, tmp_path: Path) -> None:
    """Its languages go by their codes, as in Transformers."""
    ends = {"pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
    directory = save_translator(tmp_path / "tiny", "M2M100ForConditionalGeneration", vocab_size=320, **ends)
    (directory / TOKENIZER_FILE).unlink()
    checkpoint = load_checkpoint(save_m2m100(directory), Languages(source, "fr"))
    vocabulary = Tokenizer.from_str(checkpoint.tokenizer_files[TOKENIZER_FILE])
    assert checkpoint.generation is not None
    assert checkpoint.generation.forced_bos_token_id == vocabulary.token_to_id("__fr__")
    pieces = Tokenizer.from_str(checkpoint.tokenizer_files["source_pieces.json"])
    assert pieces.encode("Hello").tokens[0] == mark
    assert cut(vocabulary, pieces, "Hello")[0] == vocabulary.token_to_id(mark)


@pytest.mark.parametrize("save", [save_marian, save_m2m100, save_unigram, save_gpt2])
def test_stop_strings_end_where_transformers_text_has_them(save: Callable[[Path], Path], tmp_path: Path) -> None:
    """Also behind more tokens of spaces, or of none, than a window has, whose decoder may take such away."""
    theirs = load_tokenizer(save(tmp_path / "tiny"))
    vocabulary = Vocabulary.of(
        Tokenizer.from_str(tokenizer_files(tmp_path / "tiny", theirs, marked=False).contents[TOKENIZER_FILE])
    )
    known = [token_id for token_id in theirs.get_vocab().values() if token_id not in vocabulary.special_ids]
    spaces = [token_id for token_id in known if theirs.convert_ids_to_tokens(token_id) in ("▁", "Ġ")]
    silent = [*vocabulary.special_ids]
    draw = random.Random(0)
    for _ in range(100):
        between = draw.choice([spaces, silent]) * draw.randint(0, 30)
        tokens = [*draw.choices(known, k=3), *between[:40], *draw.choices(known, k=3)]
        for stop in (" ", " e", "an"):
            stops = StopStrings((stop,))
            counts = range(1, len(tokens) + 1)
            ours = [count for count in counts if stops.ends_within_last(vocabulary, tokens[:count])]
            holding = [count for count in counts if stop in theirs.decode(tokens[:count], skip_special_tokens=True)]
            assert ours[:1] == holding[:1]


@pytest.mark.parametrize("lower", [True, False])
def test_a_text_of_siglip_is_nothing_but_words(lower: bool, tmp_path: Path) -> None:
    """Letters are made small as Python does, unless the tokenizer leaves them; what is ASCII punctuation is gone."""
    theirs = load_tokenizer(save_plain_words(tmp_path / "tiny", do_lower_case=lower))
    files = tokenizer_files(tmp_path / "tiny", theirs, marked=False)
    both = [Tokenizer.from_str(files.contents[name]) for name in (TOKENIZER_FILE, files.source_pieces)]
    texts = ("ΟΔΟΣ ΣΑΣ Σ ΑΣ.", "A Quick_Fox!", "İ ǅ ẞ", "\x1cthe\x1d quick\x85fox\u2028", "!!!", *WORDS)
    for text in (text for text in texts if text not in SPECIAL):
        assert cut(*both, text) == theirs(text).input_ids


def test_a_class_that_does_more_than_its_file_says_is_taken_at_its_word(tmp_path: Path) -> None:
    """SigLIP 2's makes letters small, whatever tokenizer.json is beside it."""
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *string.ascii_letters, "th", "the"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    Siglip2Tokenizer(vocab=vocabulary, merges=[("t", "h"), ("th", "e")]).save_pretrained(tmp_path)
    stored = json.loads((tmp_path / TOKENIZER_FILE).read_text())
    stored["normalizer"] = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    (tmp_path / TOKENIZER_FILE).write_text(json.dumps(stored))
    theirs = load_tokenizer(tmp_path)
    ours = Tokenizer.from_str(tokenizer_files(tmp_path, theirs, marked=False).contents[TOKENIZER_FILE])
    assert ours.encode("THE Cat").ids == theirs("the cat").input_ids == theirs("THE Cat").input_ids


def remove(directory: Path, *names: str) -> Path:
    """Remove files of a checkpoint."""
    for name in names:
        (directory / name).unlink()
    return directory


@pytest.mark.parametrize(
    ("save", "removed", "message"),
    [
        (save_word_piece, "vocab.txt", "has no tokenizer.json, nor a vocabulary to make one from"),
        (save_byte_level, "merges.txt", "tokenizer can't be loaded: `vocab` and `merges`"),
        (save_marian, "target.spm", "tokenizer can't be loaded"),
    ],
)
def test_a_vocabulary_that_lacks_a_file_is_refused(
    save: Callable[[Path], Path], removed: str, message: str, tmp_path: Path
) -> None:
    """Transformers would make up what is missing; here it is an error that names it."""
    with pytest.raises(CheckpointError, match=message):
        load_tokenizer(remove(save(tmp_path / "tiny"), removed))


def test_a_vocabulary_of_another_kind_is_refused(tmp_path: Path) -> None:
    """Where the tokenizer's class finds nothing that it reads, Transformers would make up a vocabulary."""
    directory = save_word_piece(tmp_path / "tiny")
    (directory / "tokenizer_config.json").write_text('{"tokenizer_class": "T5Tokenizer"}')
    with pytest.raises(CheckpointError, match=r"has no spiece\.model, which its T5Tokenizer needs"):
        load_tokenizer(directory)


def test_a_tokenizer_with_rules_of_its_own_is_refused(tmp_path: Path) -> None:
    """FSMT's follow Moses, language by language, which no tokenizer.json can say."""
    directory = remove(save_fsmt(tmp_path / "tiny"), TOKENIZER_FILE)
    (directory / "vocab-src.json").write_text("{}")
    with pytest.raises(CheckpointError, match="after Moses"):
        load_tokenizer(directory)


def test_a_conversion_that_strays_is_refused(tmp_path: Path) -> None:
    """A tokenizer that does what the files don't say, here to add words of its own, makes no package."""
    directory = save_marian(tmp_path / "tiny")
    theirs = load_tokenizer(directory)
    theirs.build_inputs_with_special_tokens = lambda ids, pair=None: [*ids, *([5] if len(ids) > 1 else []), 0]
    with pytest.raises(CheckpointError, match="MarianTokenizer can't be converted: of 'The quick"):
        tokenizer_files(directory, theirs, marked=False)


def test_tokens_without_an_embedding_are_refused(tmp_path: Path) -> None:
    """A word that was added and fails in Transformers is; a special token is not, since no text becomes one."""
    directory = save_classifier(tmp_path / "tiny")
    theirs = load_tokenizer(directory)
    theirs.add_special_tokens({"additional_special_tokens": ["<extra>"]})
    theirs.save_pretrained(directory)
    model = load_checkpoint(directory, ANY_LANGUAGES).model
    theirs.add_tokens(["extra"])
    theirs.save_pretrained(directory)
    with pytest.raises(IndexError):
        model(**theirs("an extra word", return_tensors="pt"))
    with pytest.raises(CheckpointError, match=r"go up to 121 \('extra'\), but .* has 120 rows, for tokens up to 119"):
        load_checkpoint(directory, ANY_LANGUAGES)

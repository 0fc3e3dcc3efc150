"""Tiny vocabularies: of letters and bytes, and in the files that checkpoints have instead of a tokenizer.json."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import sentencepiece
from tokenizers import (
    ByteLevelBPETokenizer,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)
from transformers import PreTrainedTokenizerFast
from transformers.models.m2m_100.tokenization_m2m_100 import FAIRSEQ_LANGUAGE_CODES

ENGLISH = (
    "The quick brown fox jumps over the lazy dog.",
    "I am a small frog, 123 of them, 4567 or 89.",
    "A naïve man in a café: hello, world!",
    "It's the finest office, isn't it?",
)
FRENCH = (
    "Élève à l'école : où êtes-vous ? Ça va, cœur naïf.",
    "Bonjour le monde, c'est un test.",
    "Привет, 漢字.",
)
LANGUAGE_CODES = (">>fra<<", ">>deu<<")
PAD = 2
WORDS = ("the", "cat", "sat", "on", "mat", "and", "know", "where", "it", "was", "of", "times", "hello", "world", "what")


def word_pieces(most_tokens: int) -> PreTrainedTokenizerFast:
    """Return a WordPiece tokenizer of letters and a few words, which puts two texts together as BERT's does."""
    letters = [chr(letter) for letter in range(ord("a"), ord("z") + 1)]
    words = [*WORDS, *letters, *(f"##{letter}" for letter in letters), *".,!?;'-", "##est", "##mes"]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words]
    backend = Tokenizer(models.WordPiece({piece: place for place, piece in enumerate(pieces)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    names = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=most_tokens, model_input_names=names, **special
    )


def every_byte() -> PreTrainedTokenizerFast:
    """Return a byte-level tokenizer of 257 tokens: the end of a text, which also begins one, and every byte."""
    end = "<|end|>"
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({end: 0} | {byte: 1 + at for at, byte in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=end, bos_token=end)


def save_marian(directory: Path) -> Path:
    """Write two models and a vocabulary that doesn't quite agree with them, and return the directory."""
    directory.mkdir(exist_ok=True)
    pieces = sorted(
        set(_train(directory / "source.spm", ENGLISH, 80)) | set(_train(directory / "target.spm", FRENCH, 90))
    )
    del pieces[10]  # one that a model cuts, but which has no id
    vocabulary = ["</s>", "<unk>", "<pad>", *pieces, *LANGUAGE_CODES]
    assert vocabulary.index("<pad>") == PAD
    _write(directory / "vocab.json", {piece: number for number, piece in enumerate(vocabulary)})
    return _configure(directory, "MarianTokenizer", source_lang="en", target_lang="fr", model_max_length=90)


def save_m2m100(directory: Path, model_type: str = "bpe") -> Path:
    """Write a model for all languages, and its vocabulary in another order; return the directory."""
    directory.mkdir(exist_ok=True)
    pieces = _train(directory / "sentencepiece.bpe.model", ENGLISH + FRENCH, 150, model_type)
    vocabulary = ["<s>", "<pad>", "</s>", "<unk>", *reversed(pieces)]
    _write(directory / "vocab.json", {piece: number for number, piece in enumerate(vocabulary)})
    marks = [f"__{code}__" for code in FAIRSEQ_LANGUAGE_CODES["m2m100"]]
    return _configure(directory, "M2M100Tokenizer", src_lang="en", tgt_lang="fr", extra_special_tokens=marks)


def save_unigram(directory: Path, kind: str = "T5Tokenizer", file: str = "spiece.model") -> Path:
    """Write one model that brings its vocabulary, and return the directory."""
    directory.mkdir(exist_ok=True)
    ends = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1} if kind == "T5Tokenizer" else {}
    _train(directory / file, ENGLISH + FRENCH, 120, **ends)
    return _configure(directory, kind)


def save_plain_words(directory: Path, **settings: object) -> Path:
    """Write SigLIP's kind of model, to which a text is nothing but words; return the directory."""
    directory.mkdir(exist_ok=True)
    lines = [line.lower() for line in ENGLISH + FRENCH]
    _train(directory / "spiece.model", lines, 120, pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    return _configure(directory, "SiglipTokenizer", **{"model_input_names": ["input_ids"]} | settings)


def save_word_piece(directory: Path) -> Path:
    """Write a vocab.txt, and return the directory."""
    directory.mkdir(exist_ok=True)
    letters = sorted({letter for line in ENGLISH + FRENCH for letter in line.lower() if letter != " "})
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "quick", "##ing", *letters]
    (directory / "vocab.txt").write_text("\n".join([*words, *(f"##{letter}" for letter in letters)]) + "\n")
    return _configure(directory, "BertTokenizer", do_lower_case=True)


def save_byte_level(directory: Path, kind: str = "RobertaTokenizer") -> Path:
    """Write a vocab.json and merges.txt over bytes, and return the directory."""
    directory.mkdir(exist_ok=True)
    special = ["<|endoftext|>"] if kind == "GPT2Tokenizer" else ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(ENGLISH + FRENCH, vocab_size=400, special_tokens=special)
    trained.save_model(str(directory))
    return _configure(directory, kind)


def _train(file: Path, lines: Sequence[str], size: int, model_type: str = "unigram", **ends: int) -> list[str]:
    """Write a SentencePiece model, and return its pieces without the special ones."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines * 20),
        model_writer=written,
        vocab_size=size,
        model_type=model_type,
        character_coverage=0.99,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
        **ends,
    )
    file.write_bytes(written.getvalue())
    model = sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())
    numbers = range(model.get_piece_size())
    return [
        model.id_to_piece(number) for number in numbers if not model.is_control(number) and model.unk_id() != number
    ]


def _configure(directory: Path, kind: str, **settings: object) -> Path:
    _write(directory / "tokenizer_config.json", {"tokenizer_class": kind} | settings)
    return directory


def _write(file: Path, content: object) -> None:
    file.write_text(json.dumps(content, ensure_ascii=False), "utf-8")

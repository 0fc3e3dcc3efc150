"""The proof of a converted tokenizer: it cuts and joins the texts of a corpus as Transformers does."""

# ruff: noqa: RUF001 (the corpus has what looks like other letters on purpose)

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer

from regard_export.errors import CheckpointError

CORPUS = (
    "The quick brown fox jumps over the lazy dog.",
    "Où êtes-vous, cher élève ? « Ça va », dit-il.",
    "Cafe\u0301, noe\u0308l, Vie\u0323\u0302t Nam, \u1112\u1161\u11ab\u1100\u1173\u11af",
    "Größe, Łódź, İstanbul, Привет, мир! Γειά σου. שלום مرحبا नमस्ते สวัสดี",
    "日本語の文章です。中文，没有空格。한국어 문장",
    "ＦＵＬＬ ｗｉｄｔｈ ﬁne ﬂour ½ ① ㎏ … 10\u00a0000",
    "😀 👩\u200d👩\u200d👧 👍🏽 🇫🇷 ❤\ufe0f",
    "tabs\tand\nlines\r\nand   many    spaces ",
    " \u3000 before and after \u200b ",
    "control \x01\x02\x1f\x7f characters\ufeff",
    "<a href='x'>&amp;</a> {\"k\": [1, 2.5e-3]} C:\\path user@example.org #tag",
    "1234567890 3.14 1,000,000 -42 2026-11-21",
    "x" * 300,
    "antidisestablishmentarianism" * 8,
    "!?.,;:" * 20,
    "a",
    "",
)
_DECODED = 50
"""How many sequences of random tokens are joined."""


def prove(tokenizer: Any, vocabulary_json: str, pieces_json: str | None) -> None:
    """Compare the tokenizer of `vocabulary_json`, with the pieces of the other, if there is one, with `tokenizer`.

    Raises `CheckpointError`, with the text or the tokens, where they differ.
    """
    vocabulary = Tokenizer.from_str(vocabulary_json)
    pieces = Tokenizer.from_str(pieces_json) if pieces_json is not None else None
    kind = type(tokenizer).__name__
    for text in CORPUS:
        ours, theirs = cut(vocabulary, pieces, text), list(tokenizer(text).input_ids)
        if ours != theirs:
            raise CheckpointError(
                f"{kind} can't be converted: of {text[:40]!r} it makes {theirs[:12]}, not {ours[:12]}"
            )
        _compare_texts(tokenizer, vocabulary, theirs)
    choice = random.Random(0)
    known = sorted(vocabulary.get_vocab().values())
    for _ in range(_DECODED):
        _compare_texts(tokenizer, vocabulary, choice.choices(known, k=choice.randint(1, 20)))


def cut(vocabulary: Tokenizer, pieces: Tokenizer | None, text: str) -> list[int | None]:
    """Return the tokens of `text`, by the vocabulary's tokenizer itself or from pieces that are looked up."""
    if pieces is None:
        return list(vocabulary.encode(text).ids)
    ids, encoding = vocabulary.get_vocab(), pieces.encode(text)
    unknown = ids.get(vocabulary.model.unk_token)
    return [ids.get(piece, unknown) for piece in encoding.tokens]


def _compare_texts(tokenizer: Any, vocabulary: Tokenizer, token_ids: Sequence[int]) -> None:
    special = {token_id for token_id, token in vocabulary.get_added_tokens_decoder().items() if token.special}
    spoken = [token_id for token_id in token_ids if token_id not in special]
    ours, theirs = vocabulary.decode(spoken), tokenizer.decode(spoken)
    if ours != theirs:
        raise CheckpointError(
            f"{type(tokenizer).__name__} can't be converted: {spoken[:12]} are {theirs[:40]!r} to it, not {ours[:40]!r}"
        )

"""Words: how a text falls apart into them, and which tokens make up each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from regard.manifest import Task
from regard.text.codec import TextCodec
from regard.text.segment import Segment
from regard.text.words import words_of

from .packages import SENTENCES, byte_fallback, byte_level, manifest_of, package_of, unigram, word_piece

EVERY_TOKENIZER = pytest.mark.parametrize(
    "make", [unigram, word_piece, byte_level, byte_fallback], ids=lambda make: make.__name__
)
TEXTS = [*SENTENCES, "日本語 is 漢字, 😀!", "ภาษาไทย", "ﬁne e\u0301te\u0301", "3.14 % of «l'homme»", "...?!"]


def characters_of(text: str) -> list[Segment]:
    """Return a segment for each character of `text` that is no white space."""
    return [Segment(c, i, i + 1, False, ord(c)) for i, c in enumerate(text) if not c.isspace()]


def spelled(text: str) -> list[str]:
    """Return the words of `text`, of which every character is a token."""
    return [word.segment.text for word in words_of(text, characters_of(text))]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Hello, world!", ["Hello", ",", "world", "!"]),
        ("don't stop", ["don't", "stop"]),
        ("l’homme well-known", ["l’homme", "well-known"]),
        ("stop- -a 'tis'", ["stop", "-", "-", "a", "'", "tis", "'"]),
        ("  3.14\u00a0% ", ["3", ".", "14", "%"]),
        ("cafe\u0301 naïve", ["cafe\u0301", "naïve"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("👩‍👩‍👧 👍🏽 🇫🇷 ❤️a", ["👩‍👩‍👧", "👍🏽", "🇫🇷", "❤️", "a"]),
        ("漢字です。", ["漢", "字", "で", "す", "。"]),
        ("カメラは", ["カメラ", "は"]),
        ("ง่าย", ["ง่", "า", "ย"]),
    ],
)
def test_a_text_falls_apart_into_words(text: str, words: list[str]) -> None:
    """Letters, marks and digits with what joins them are words; anything else is one by itself."""
    assert spelled(text) == words


@EVERY_TOKENIZER
@pytest.mark.parametrize("text", TEXTS)
def test_each_token_is_in_one_word(tmp_path: Path, make: Callable[[], Tokenizer], text: str) -> None:
    """Words, whether of the input or of an output, share out the tokens and stand where their text does."""
    codec = TextCodec(package_of(tmp_path, make(), manifest_of(Task.TRANSLATION, max_source_tokens=64)))
    encoded = codec.encode(text, truncate=False, field="text")

    for passage, segments in [(text, encoded.segments), codec.segments_of(encoded.token_ids.tolist())]:
        words = words_of(passage, segments)
        assert sorted(token for word in words for token in word.tokens) == list(range(len(segments)))
        assert [word.tokens[0] for word in words] == sorted(word.tokens[0] for word in words)
        for word in words:
            assert word.segment.special == segments[word.tokens[0]].special
            if word.segment.start < word.segment.end:
                assert word.segment.text == passage[word.segment.start : word.segment.end]


def test_a_word_holds_its_pieces(tmp_path: Path) -> None:
    """The pieces of a word are put together, and special tokens stay by themselves."""
    text = "Translation don't, cat"
    codec = TextCodec(package_of(tmp_path, word_piece(), manifest_of(Task.CLASSIFICATION)))
    segments = codec.encode(text, truncate=False, field="text").segments

    words = words_of(text, segments)

    assert [word.segment.text for word in words] == ["[CLS]", "Translation", "don't", ",", "cat", "[SEP]"]
    assert len(words[2].tokens) >= 3
    assert "".join(segments[token].text.removeprefix("##") for token in words[2].tokens) == "don't"


def test_a_word_of_one_token_keeps_its_id() -> None:
    """A word has a token's id if that token is all it has."""
    segments = [Segment("▁a", 0, 1, False, 5), Segment("▁b", 2, 3, False, 6), Segment("c", 3, 4, False, 7)]

    assert [word.segment.token_id for word in words_of("a bc", segments)] == [5, None]


def test_a_token_over_several_words_joins_them() -> None:
    """Words that no token starts join the word before whose token covers them."""
    text = "a ?! b c"
    segments = [Segment("<unk>", 0, 4, False, 1), Segment("▁b", 5, 6, False, 2), Segment("▁c", 7, 8, False, 3)]

    assert [word.segment.text for word in words_of(text, segments)] == ["a ?!", "b", "c"]


def test_a_token_that_ends_within_a_word_leaves_it_alone() -> None:
    """A word that a token starts is its own, even if the token before reaches into it."""
    segments = [Segment("漢", 0, 1, False, 1), Segment("字か", 1, 3, False, 2), Segment("か", 2, 3, False, 3)]

    assert [(word.segment.text, word.tokens) for word in words_of("漢字か", segments)] == [
        ("漢", (0,)),
        ("字", (1,)),
        ("か", (2,)),
    ]


def test_a_token_of_white_space_joins_the_next_word() -> None:
    """A word's leading space is part of it; trailing space is part of the last."""
    segments = [Segment("▁", 1, 1, False, 9), Segment("😀", 1, 2, False, 8), Segment("▁", 3, 3, False, 9)]

    assert [word.tokens for word in words_of(" 😀 ", segments)] == [(0, 1, 2)]


def test_words_end_with_the_last_token() -> None:
    """A text that was cut has the words of its tokens only, the last of them as far as it was read."""
    assert [word.segment.text for word in words_of("the cat sat", characters_of("the ca"))] == ["the", "ca"]


def test_a_text_without_words_has_a_word_for_each_token() -> None:
    """An output of white space and special tokens alone still shares out its tokens."""
    segments = [Segment("▁", 1, 1, False, 9), Segment("</s>", 1, 1, True, 0)]

    assert [word.tokens for word in words_of(" ", segments)] == [(0,), (1,)]


def test_a_special_token_within_a_word_does_not_part_it() -> None:
    """The tokens on both sides of a token that leaves no text are one word."""
    segments = [Segment("fo", 0, 2, False, 1), Segment("<unk>", 2, 2, True, 2), Segment("o", 2, 3, False, 3)]

    assert [word.tokens for word in words_of("foo", segments)] == [(0, 2), (1,)]

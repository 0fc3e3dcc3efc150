"""Detokenizing: deltas that make up the text, and where each token stands in it."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Regex, Tokenizer, decoders, models

from regard.manifest import Task
from regard.text.codec import TextCodec
from regard.text.detokenizer import Detokenizer, Vocabulary

from .packages import SENTENCES, byte_fallback, byte_level, manifest_of, package_of, unigram, word_piece


def suffix_bpe() -> Tokenizer:
    """Return a tokenizer whose words end in a mark, as XLM's."""
    pieces = ["<unk>", "he", "llo</w>", "wor", "ld</w>", "a</w>"]
    tokenizer = Tokenizer(models.BPE({piece: index for index, piece in enumerate(pieces)}, [], unk_token="<unk>"))
    tokenizer.decoder = decoders.BPEDecoder(suffix="</w>")
    return tokenizer


def stripped() -> Tokenizer:
    """Return a tokenizer whose decoder leaves out the spaces around a text, however many, as Marian's."""
    pieces = ["<unk>", "▁", "▁a", "b", "▁▁"]
    tokenizer = Tokenizer(models.WordLevel({piece: index for index, piece in enumerate(pieces)}, unk_token="<unk>"))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Replace(Regex(r"\A +| +\z"), "")]
    )
    return tokenizer


def undecoded() -> Tokenizer:
    """Return a tokenizer without a decoder, whose tokens are put together with spaces."""
    return Tokenizer(models.WordLevel({"<unk>": 0, "a": 1, "b": 2, "\N{REPLACEMENT CHARACTER}": 3}, unk_token="<unk>"))


EVERY_TOKENIZER = pytest.mark.parametrize(
    "make",
    [unigram, word_piece, byte_level, byte_fallback, suffix_bpe, stripped, undecoded],
    ids=lambda make: make.__name__,
)


def codec_of(directory: Path, tokenizer: Tokenizer) -> TextCodec:
    """Return the codec of a package around `tokenizer`."""
    return TextCodec(package_of(directory, tokenizer, manifest_of(Task.TRANSLATION, max_source_tokens=64)))


def id_of(tokenizer: Tokenizer, token: str) -> int:
    """Return the id of a token that the vocabulary has."""
    token_id = tokenizer.token_to_id(token)
    assert token_id is not None
    return token_id


def deltas_of(codec: TextCodec, token_ids: list[int]) -> list[str]:
    """Return what each token adds, and then the rest."""
    detokenizer = codec.detokenizer()
    return [*(detokenizer.push(token_id) for token_id in token_ids), detokenizer.finish()]


def sequences_of(tokenizer: Tokenizer, seed: int, count: int) -> list[list[int]]:
    """Return sequences of any tokens, of a few tokens only, and with special and unheard-of ones in between."""
    rng = random.Random(seed)
    vocabulary = range(tokenizer.get_vocab_size())
    sequences = []
    for _ in range(count):
        pool = rng.choice([list(vocabulary), rng.choices(vocabulary, k=3), [*rng.choices(vocabulary, k=6), 0, 1, 9999]])
        sequences.append(rng.choices(pool, k=rng.randrange(1, 60)))
    return sequences


@EVERY_TOKENIZER
def test_deltas_make_up_the_text(tmp_path: Path, make: Callable[[], Tokenizer]) -> None:
    """Whatever the tokens, their deltas put together are the decoding of all at once."""
    tokenizer = make()
    codec = codec_of(tmp_path, tokenizer)

    for token_ids in sequences_of(tokenizer, seed=7, count=150):
        assert "".join(deltas_of(codec, token_ids)) == tokenizer.decode(token_ids), token_ids


@EVERY_TOKENIZER
def test_spans_stand_in_order_within_the_text(tmp_path: Path, make: Callable[[], Tokenizer]) -> None:
    """Segments lie within the text, begin in order, hold all but its white space, and begin and end with none."""
    tokenizer = make()
    codec = codec_of(tmp_path, tokenizer)

    for token_ids in sequences_of(tokenizer, seed=11, count=150):
        text, segments = codec.segments_of(token_ids)
        assert text == tokenizer.decode(token_ids)
        assert len(segments) == len(token_ids)
        assert all(0 <= segment.start <= segment.end <= len(text) for segment in segments)
        starts = [segment.start for segment in segments if not segment.special]
        assert starts == sorted(starts), token_ids
        covered = {place for segment in segments for place in range(segment.start, segment.end)}
        assert {place for place, character in enumerate(text) if not character.isspace()} <= covered, token_ids
        parts = [text[segment.start : segment.end] for segment in segments]
        assert parts == [part.strip() for part in parts]


@pytest.mark.parametrize("make", [unigram, byte_level, byte_fallback], ids=lambda make: make.__name__)
@pytest.mark.parametrize("text", SENTENCES)
def test_encoded_text_comes_back_in_place(tmp_path: Path, make: Callable[[], Tokenizer], text: str) -> None:
    """The tokens of a plain text, decoded again, stand where they stood in it."""
    codec = codec_of(tmp_path, make())
    encoded = codec.encode(text, truncate=False, field="text")

    decoded, segments = codec.segments_of(encoded.token_ids.tolist())

    assert decoded == text
    prepended = segments[0].text == "▁"  # to the input, where it has no place of its own
    assert [(s.start, s.end) for s in segments][prepended:] == [(s.start, s.end) for s in encoded.segments][prepended:]


@pytest.mark.parametrize("make", [byte_level, byte_fallback], ids=lambda make: make.__name__)
def test_bytes_of_one_character_all_span_it(tmp_path: Path, make: Callable[[], Tokenizer]) -> None:
    """A character of several tokens is given once, complete, and each of its tokens spans it."""
    tokenizer = make()
    codec = codec_of(tmp_path, tokenizer)
    token_ids = tokenizer.encode("a😀é b").ids

    text, segments = codec.segments_of(token_ids)

    assert text == "a😀é b"
    assert [(s.start, s.end) for s in segments].count((1, 2)) == 4
    assert [delta for delta in deltas_of(codec, token_ids) if "😀" in delta]
    assert not any("\N{REPLACEMENT CHARACTER}" in delta for delta in deltas_of(codec, token_ids))


def test_an_incomplete_character_is_given_at_the_end(tmp_path: Path) -> None:
    """What never becomes a character is given when no more tokens come."""
    tokenizer = byte_level()
    codec = codec_of(tmp_path, tokenizer)
    token_ids = tokenizer.encode("a😀").ids[:-2]

    *deltas, rest = deltas_of(codec, token_ids)

    assert "".join(deltas) == "a"
    assert rest == "\N{REPLACEMENT CHARACTER}"


def test_a_stray_byte_spoils_its_whole_run(tmp_path: Path) -> None:
    """Byte-fallback tokens are given when their run ends, for until then one more could undo them."""
    tokenizer = byte_fallback()
    codec = codec_of(tmp_path, tokenizer)
    good = [id_of(tokenizer, f"<0x{byte:02X}>") for byte in "é".encode()]
    stray, word = id_of(tokenizer, "<0xFF>"), id_of(tokenizer, "at")

    assert deltas_of(codec, [*good, word]) == ["", "", "éat", ""]
    assert deltas_of(codec, [*good, stray, word]) == ["", "", "", "\N{REPLACEMENT CHARACTER}" * 3 + "at", ""]


def test_what_stays_broken_is_not_the_next_tokens(tmp_path: Path) -> None:
    """A token that follows a broken character spans its own characters only."""
    tokenizer = byte_level()
    broken, word = tokenizer.encode("é").ids[1], id_of(tokenizer, "at")

    _, segments = codec_of(tmp_path, tokenizer).segments_of([broken, broken, word])

    assert [(s.start, s.end) for s in segments] == [(0, 1), (1, 2), (2, 4)]


def test_a_space_at_the_very_beginning_is_dropped(tmp_path: Path) -> None:
    """The space that a decoder strips from the beginning moves the bytes behind it to their place."""
    tokenizer = byte_fallback()
    token_ids = [id_of(tokenizer, f"<0x{byte:02X}>") for byte in " aé".encode()]

    text, segments = codec_of(tmp_path, tokenizer).segments_of(token_ids)

    assert text == "aé"
    assert [(s.start, s.end) for s in segments][1:] == [(0, 1), (1, 2), (1, 2)]


def test_special_tokens_stand_nowhere(tmp_path: Path) -> None:
    """The end of the sentence is special and stands, empty, at the end of the text."""
    tokenizer = unigram()
    text, segments = codec_of(tmp_path, tokenizer).segments_of(tokenizer.encode("the cat").ids)

    assert (segments[-1].text, segments[-1].start, segments[-1].end) == ("</s>", len(text), len(text))
    assert [segment.special for segment in segments] == [False] * (len(segments) - 1) + [True]


def test_the_start_token_stands_before_the_text(tmp_path: Path) -> None:
    """The decoder's start token is a special segment at 0."""
    segment = codec_of(tmp_path, unigram()).special_segment(2)

    assert (segment.text, segment.start, segment.end, segment.special, segment.token_id) == ("<pad>", 0, 0, True, 2)


@pytest.mark.parametrize("piece", ["a", "Ã"])
def test_work_does_not_grow_with_the_output(monkeypatch: pytest.MonkeyPatch, piece: str) -> None:
    """However long the output, and however broken, no push decodes more than a few tokens."""
    tokenizer = byte_level()
    vocabulary = Vocabulary.of(tokenizer)
    longest = 0
    decode = Vocabulary.decode

    def watched(self: Vocabulary, token_ids: list[int]) -> str:
        nonlocal longest
        longest = max(longest, len(token_ids))
        return decode(self, token_ids)

    monkeypatch.setattr(Vocabulary, "decode", watched)
    detokenizer = Detokenizer(vocabulary)
    for _ in range(2000):
        detokenizer.push(id_of(tokenizer, piece))

    assert longest <= 16
    assert detokenizer.length == 2000

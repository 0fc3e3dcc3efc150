"""Stop strings: where a text ends, whatever its tokenizer, and what a stream holds back."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders
from tokenizers.models import WordLevel

from regard.errors import EngineError
from regard.manifest import Task
from regard.text.codec import TextCodec
from regard.text.detokenizer import Vocabulary
from regard.text.stops import StopFilter, StopStrings

from .packages import SENTENCES, byte_fallback, byte_level, manifest_of, package_of, unigram, word_piece

LETTERS = st.text(alphabet="ab.", max_size=20)


@pytest.mark.parametrize("make", [unigram, word_piece, byte_level, byte_fallback], ids=lambda make: make.__name__)
@pytest.mark.parametrize("strings", [(" sat",), ("times",), ("é",), ("?", "the best"), ("dog",)], ids=str)
def test_a_stop_string_ends_within_one_token(
    tmp_path: Path, make: Callable[[], Tokenizer], strings: tuple[str, ...]
) -> None:
    """It is seen at the first token with which the whole text holds it, and only at tokens that complete one."""
    codec = TextCodec(package_of(tmp_path, make(), manifest_of(Task.TRANSLATION)))
    ends_at_stop = codec.ends_at_stop(StopStrings(strings))
    for sentence in SENTENCES:
        tokens = codec.pieces(sentence)
        texts = [codec.decode(tokens[:count]) for count in range(len(tokens) + 1)]
        seen = [ends_at_stop(tokens[:count]) for count in range(1, len(tokens) + 1)]
        completed = [
            any(after.count(string) > before.count(string) for string in strings) for before, after in pairwise(texts)
        ]
        assert seen == completed


@pytest.mark.parametrize(
    ("text", "kept"), [("one two.three", "one"), ("one.", "one"), ("three", "three"), ("", ""), (" two", "")]
)
def test_a_text_is_cut_before_its_first_stop_string(text: str, kept: str) -> None:
    """The earliest of several counts, and a text without any stays whole."""
    assert StopStrings((".", " two")).cut(text) == kept


@given(st.lists(LETTERS), st.lists(LETTERS.filter(len), min_size=1, max_size=3))
def test_a_stream_is_the_text_up_to_its_stop_string(pieces: list[str], strings: list[str]) -> None:
    """Whatever the pieces are, nothing of a stop string is ever given out, and nothing else is lost."""
    stops = StopStrings(tuple(strings))
    filtered = StopFilter(stops)
    given_out = ""
    for piece in pieces:
        given_out += filtered.push(piece)
        assert stops.cut("".join(pieces)).startswith(given_out)
    assert given_out + filtered.finish() == stops.cut("".join(pieces))


def test_what_cannot_begin_a_stop_string_is_not_held_back() -> None:
    """Of "a cat" nothing waits for "at night", once it can't be its beginning any more."""
    filtered = StopFilter(StopStrings(("at night",)))
    assert [filtered.push(piece) for piece in ("a c", "at", " n", "ow")] == ["a c", "", "", "at now"]


def test_a_decoder_that_panics_fails_as_anything_else_does() -> None:
    """`Strip` panics at a piece of which nothing is left; no `except Exception` would see it."""
    tokenizer = Tokenizer(WordLevel({"<unk>": 0, "\u2581": 1, "a": 2}, unk_token="<unk>"))
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.Fuse(), decoders.Strip(" ", 1, 1)])
    vocabulary, stops = Vocabulary.of(tokenizer), StopStrings(("x",))
    assert not stops.ends_within_last(vocabulary, [2, 2])
    with pytest.raises(EngineError, match="tokenizer failed on the request's text"):
        stops.ends_within_last(vocabulary, [1])

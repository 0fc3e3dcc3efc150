"""Encoding: tokens, where they stand in the text, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from regard.errors import InvalidInputError, PackageError
from regard.manifest import Task
from regard.text.codec import TextCodec

from .packages import SENTENCES, byte_fallback, byte_level, manifest_of, package_of, unigram, word_piece

TOKENIZERS = [unigram, word_piece, byte_level, byte_fallback]
EVERY_TOKENIZER = pytest.mark.parametrize("make", TOKENIZERS, ids=lambda make: make.__name__)


def codec_of(directory: Path, tokenizer: Tokenizer, *, max_source_tokens: int = 64) -> TextCodec:
    """Return the codec of a package around `tokenizer`."""
    manifest = manifest_of(Task.TRANSLATION, max_source_tokens=max_source_tokens)
    return TextCodec(package_of(directory, tokenizer, manifest))


def spelled(codec: TextCodec, text: str) -> list[str]:
    """Return the part of `text` where each of its tokens stands."""
    encoded = codec.encode(text, truncate=False, field="text")
    return [text[segment.start : segment.end] for segment in encoded.segments if not segment.special]


@EVERY_TOKENIZER
@pytest.mark.parametrize("text", SENTENCES)
def test_tokens_are_the_tokenizers_own(tmp_path: Path, make: Callable[[], Tokenizer], text: str) -> None:
    """The ids are those that the tokenizer gives by itself, with a segment for each."""
    tokenizer = make()

    encoded = codec_of(tmp_path, tokenizer).encode(text, truncate=False, field="text")

    assert encoded.token_ids.tolist() == tokenizer.encode(text).ids
    assert [segment.token_id for segment in encoded.segments] == encoded.token_ids.tolist()
    assert [segment.text for segment in encoded.segments] == tokenizer.encode(text).tokens
    assert not encoded.truncated


@EVERY_TOKENIZER
@pytest.mark.parametrize(
    "text",
    [*SENTENCES, "  two  spaces \t and a tab ", "a 😀 b 👩‍👩‍👧 c", "ﬁne ﬁsh, 10\u00a0000", "cafe\u0301 noe\u0308l x"],
)
def test_segments_cover_all_but_white_space(tmp_path: Path, make: Callable[[], Tokenizer], text: str) -> None:
    """Every character that is no white space lies in some segment, and no segment begins or ends with any."""
    encoded = codec_of(tmp_path, make()).encode(text, truncate=False, field="text")

    covered = {place for segment in encoded.segments for place in range(segment.start, segment.end)}
    assert {place for place, character in enumerate(text) if not character.isspace()} <= covered
    for segment in encoded.segments:
        part = text[segment.start : segment.end]
        assert part == part.strip()


def test_offsets_count_code_points(tmp_path: Path) -> None:
    """A token after an emoji starts one code point later, not two or four."""
    assert spelled(codec_of(tmp_path, word_piece()), "😀 the mat") == ["😀", "the", "mat"]


def test_offsets_are_those_of_the_original_text(tmp_path: Path) -> None:
    """A ligature that normalization takes apart is one character of the text, which all its tokens share."""
    codec = codec_of(tmp_path, unigram())

    segments = codec.encode("ﬁ cat", truncate=False, field="text").segments

    assert {(segment.start, segment.end) for segment in segments if segment.start == 0} == {(0, 1)}
    assert "".join(spelled(codec, "ﬁ cat")).endswith("cat")


@EVERY_TOKENIZER
def test_a_combining_mark_belongs_to_its_letter(tmp_path: Path, make: Callable[[], Tokenizer]) -> None:
    """A letter that normalization composes with its mark, or strips of it, spans both."""
    text = "cafe\u0301 x"

    segments = codec_of(tmp_path, make()).encode(text, truncate=False, field="text").segments

    assert 5 in {segment.end for segment in segments}
    assert all(segment.start < segment.end for segment in segments if segment.start == 3)


def test_composed_syllables_span_their_parts(tmp_path: Path) -> None:
    """A Korean syllable written in parts is one token over all three of them."""
    assert spelled(codec_of(tmp_path, word_piece()), "\u1112\u1161\u11ab a")[0] == "\u1112\u1161\u11ab"


def test_special_tokens_stand_nowhere(tmp_path: Path) -> None:
    """[CLS] stands before the text and [SEP] after its last token, both empty."""
    first, *_, last = codec_of(tmp_path, word_piece()).encode("the cat", truncate=False, field="text").segments

    assert (first.text, first.start, first.end, first.special) == ("[CLS]", 0, 0, True)
    assert (last.text, last.start, last.end, last.special) == ("[SEP]", 7, 7, True)


@EVERY_TOKENIZER
@pytest.mark.parametrize("text", SENTENCES)
def test_prompts_of_templates_hold_their_special_tokens(
    tmp_path: Path, make: Callable[[], Tokenizer], text: str
) -> None:
    """As a tokenizer finds them that reads special tokens and adds none; other prompts hold none that they spell."""
    tokenizer = make()
    spelling = next(str(token) for token in tokenizer.get_added_tokens_decoder().values() if token.special)
    codec, prompt = codec_of(tmp_path, tokenizer), f"{spelling}{text} {spelling}"
    tokenizer.encode_special_tokens = False
    expected = tokenizer.encode(prompt, add_special_tokens=False)

    templated = codec.encode_prompt(prompt, templated=True, field="prompts[0]")
    written = codec.encode_prompt(prompt, field="prompts[0]")

    assert templated.token_ids.tolist() == expected.ids
    assert [one.text for one in templated.segments] == expected.tokens
    assert not any(segment.special for segment in templated.segments)
    tokenizer.encode_special_tokens = True
    assert len(written.segments) == len(tokenizer.encode(prompt)) > len(expected)


@pytest.mark.parametrize(("make", "spelling"), [(unigram, "</s>"), (word_piece, "[SEP]"), (byte_level, "</s>")])
def test_a_special_token_spelled_out_is_no_special_token(
    tmp_path: Path, make: Callable[[], Tokenizer], spelling: str
) -> None:
    """What the caller wrote can't end the text, open another or be padding: it is cut up, or unknown."""
    text = f"the {spelling} cat"
    codec = codec_of(tmp_path, make())

    encoded = codec.encode(text, truncate=False, field="text")

    special = codec.special_token(spelling)
    assert encoded.token_ids.tolist().count(special) == 1
    assert encoded.token_ids[-1] == special
    assert spelling in "".join(text[segment.start : segment.end] for segment in encoded.segments)
    assert special not in codec.pieces(text)


def test_pieces_are_looked_up_in_the_vocabulary(tmp_path: Path) -> None:
    """A piece has the id of its spelling, whatever its own; one without is unknown, as is a special token's."""
    vocabulary = Tokenizer(models.WordLevel({"<unk>": 7, "</s>": 3, "▁the": 5, "▁": 2, "s": 9}, unk_token="<unk>"))
    vocabulary.add_special_tokens(["<unk>", "</s>"])
    pieces = Tokenizer(models.Unigram([("<unk>", 0), ("▁", -1), ("▁the", -1), ("c", -1), ("</s>", -1)], unk_id=0))
    pieces.pre_tokenizer = pre_tokenizers.Metaspace()
    pieces.add_special_tokens(["</s>"])
    pieces.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 4)])
    manifest = manifest_of(Task.TRANSLATION)
    assert manifest.text is not None
    files = {"source_pieces_file": "pieces.json", "target_pieces_file": "pieces.json"}
    manifest = manifest.model_copy(update={"text": manifest.text.model_copy(update=files)})
    pieces.save(str(tmp_path / "pieces.json"))
    codec = TextCodec(package_of(tmp_path, vocabulary, manifest))

    encoded = codec.encode("the cs </s>", truncate=False, field="text")

    assert encoded.token_ids.tolist() == [5, 2, 7, 9, 2, 7, 3]
    assert [(s.start, s.end) for s in encoded.segments] == [(0, 3), (4, 4), (4, 5), (5, 6), (7, 7), (7, 11), (11, 11)]
    assert codec.pieces("the s") == [5, 2, 9]


def test_a_special_token_that_nothing_can_stand_for_is_left_out(tmp_path: Path) -> None:
    """A vocabulary without an unknown token gives none for it."""
    tokenizer = Tokenizer(models.WordLevel({"</s>": 0, "a": 1}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["</s>"])
    codec = codec_of(tmp_path, tokenizer)

    encoded = codec.encode("a </s> a", truncate=False, field="text")

    assert encoded.token_ids.tolist() == [1, 1]
    assert [(segment.start, segment.end) for segment in encoded.segments] == [(0, 1), (7, 8)]
    with pytest.raises(InvalidInputError, match="nothing that the model's vocabulary knows"):
        codec.encode("</s>", truncate=False, field="text")


def test_a_text_of_unknown_tokens_is_taken(tmp_path: Path) -> None:
    """A text that the vocabulary doesn't know becomes unknown tokens, which stand where it stands."""
    encoded = codec_of(tmp_path, unigram()).encode("漢字", truncate=False, field="text")

    assert "<unk>" in {unigram().id_to_token(token_id) for token_id in encoded.token_ids}
    assert max(segment.end for segment in encoded.segments) == 2


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is empty"),
        (" ", "white space"),
        ("\t\n\u3000\u00a0", "white space"),
        ("a\0b", "NUL (U+0000) at position 1"),
        ("ab\ud800", "lone surrogate (U+D800) at position 2"),
        ("\udfff", "lone surrogate (U+DFFF) at position 0"),
        ("the cat " * 20, "at most 16"),
        ("a" * 2000, "2000 characters, which is more than 1024"),
    ],
    ids=["empty", "space", "spaces", "nul", "high-surrogate", "low-surrogate", "many-tokens", "many-characters"],
)
def test_bad_text_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    """The refusal names the field, the problem and the limit."""
    codec = codec_of(tmp_path, unigram(), max_source_tokens=16)

    with pytest.raises(InvalidInputError) as refusal:
        codec.encode(text, truncate=False, field="texts[2]")

    assert refusal.value.field == "texts[2]"
    assert refusal.value.message.startswith("texts[2] ")
    assert problem in refusal.value.message


def test_a_text_that_leaves_no_token_is_refused(tmp_path: Path) -> None:
    """A text of control characters alone, which a tokenizer without special tokens drops, is refused."""
    tokenizer = word_piece()
    tokenizer.post_processor = None
    codec = codec_of(tmp_path, tokenizer)

    with pytest.raises(InvalidInputError, match="nothing that the model's vocabulary knows"):
        codec.encode("\x01\x02", truncate=False, field="text")


@pytest.mark.parametrize("length", [16, 17, 40, 5000])
@EVERY_TOKENIZER
def test_truncation_keeps_the_last_special_tokens(tmp_path: Path, make: Callable[[], Tokenizer], length: int) -> None:
    """A cut text has as many tokens as the model takes: its first ones, then the special ones that end it."""
    tokenizer, text = make(), "the cat " * length
    whole = tokenizer.encode(text)
    tail = 1 if whole.special_tokens_mask[-1] else 0

    encoded = codec_of(tmp_path, tokenizer, max_source_tokens=16).encode(text, truncate=True, field="text")

    assert encoded.truncated
    assert encoded.token_ids.tolist() == whole.ids[: 16 - tail] + whole.ids[len(whole.ids) - tail :]
    assert len(encoded.segments) == 16
    assert encoded.segments[-1].special is bool(tail)
    assert encoded.segments[-1].end == max(segment.end for segment in encoded.segments)


def test_truncation_leaves_what_fits(tmp_path: Path) -> None:
    """A text within the limit is neither cut nor said to be."""
    codec = codec_of(tmp_path, unigram(), max_source_tokens=16)

    assert not codec.encode("the cat", truncate=True, field="text").truncated
    assert codec.encode("the cat " * 20, truncate=True, field="text").truncated


@pytest.mark.parametrize("text", ["the cat", "the cat " * 40, "!"])
@pytest.mark.parametrize("side", ["left", "right"])
@EVERY_TOKENIZER
def test_padding_that_is_read_is_the_tokenizers_own(
    tmp_path: Path, make: Callable[[], Tokenizer], side: str, text: str
) -> None:
    """Every text has one length: a short one by padding, which stands nowhere, and a long one cut, if it may be."""
    tokenizer = make()
    manifest = manifest_of(Task.TRANSLATION, max_source_tokens=16)
    assert manifest.text is not None
    spec = manifest.text.model_copy(update={"padded_to": side, "pad_token_id": 1})
    package = package_of(tmp_path, tokenizer, manifest.model_copy(update={"text": spec}))
    codec = TextCodec(package.within(4))
    tokenizer.enable_padding(direction=side, length=16, pad_id=1, pad_token=tokenizer.id_to_token(1))
    expected, real = tokenizer.encode(text).ids, sum(tokenizer.encode(text).attention_mask)

    encoded = codec.encode(text, truncate=True, field="text")

    assert len(encoded.token_ids) == codec.foresee(text) == 16
    assert encoded.truncated == (real > 16)
    if real <= 16:
        assert encoded.token_ids.tolist() == expected
        padding = encoded.segments[: 16 - real] if side == "left" else encoded.segments[real:]
        assert all(segment.special and segment.start == segment.end for segment in padding)


def test_truncation_to_white_space_is_refused(tmp_path: Path) -> None:
    """A text that is cut before it begins, for all the white space in front, is refused."""
    codec = codec_of(tmp_path, unigram(), max_source_tokens=16)

    with pytest.raises(InvalidInputError, match="text begins with 1024 characters of white space"):
        codec.encode(" " * 5000 + "the cat", truncate=True, field="text")


def test_the_tokenizers_own_limits_are_off(tmp_path: Path) -> None:
    """A tokenizer file that asks for padding and truncation gets neither."""
    tokenizer = unigram()
    tokenizer.enable_padding(length=50)
    tokenizer.enable_truncation(4)

    encoded = codec_of(tmp_path, tokenizer).encode("the cat sat on the mat", truncate=False, field="text")

    assert encoded.token_ids.tolist() == unigram().encode("the cat sat on the mat").ids


def test_a_broken_tokenizer_file_is_named(tmp_path: Path) -> None:
    """A package whose tokenizer can't be read is refused by name."""
    package = package_of(tmp_path, unigram(), manifest_of(Task.TRANSLATION))
    package.path("tokenizer.json").write_text("{}")

    with pytest.raises(PackageError, match=r"package tiny/1: tokenizer\.json"):
        TextCodec(package)


def test_a_limit_without_room_for_text_is_refused(tmp_path: Path) -> None:
    """A package that takes no more tokens than the special ones can't work."""
    with pytest.raises(PackageError, match="2 special tokens leave no room for text in 2 source tokens"):
        codec_of(tmp_path, word_piece(), max_source_tokens=2)


def test_threads_share_a_codec(tmp_path: Path) -> None:
    """Encoding from several threads at once gives what one after the other gives."""
    codec = codec_of(tmp_path, unigram())
    texts = [f"{sentence} {number}" for number in range(50) for sentence in SENTENCES]

    def encode(text: str) -> list[int]:
        ids: list[int] = codec.encode(text, truncate=False, field="text").token_ids.tolist()
        return ids

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(encode, texts)) == [encode(text) for text in texts]


@pytest.fixture
def pairs(tmp_path: Path) -> TextCodec:
    """Return the codec of a model of 16 tokens that reads which of two texts each is of."""
    manifest = manifest_of(Task.CLASSIFICATION, max_source_tokens=16)
    assert manifest.text is not None
    text = manifest.text.model_copy(update={"token_types": True})
    return TextCodec(package_of(tmp_path, paired(), manifest.model_copy(update={"text": text})))


def paired() -> Tokenizer:
    """Return a WordPiece tokenizer that puts two texts together as BERT's does."""
    tokenizer = word_piece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("The cat sat.", "Hello, world!"),
        ("The cat sat on the mat and the cat sat on the mat.", "Hello"),
        ("Hello", "The cat sat on the mat and the cat sat on the mat."),
        ("The cat sat on the mat, the cat sat on it.", "I don't know where the well-known man is."),
    ],
    ids=["short", "long first", "long second", "both long"],
)
def test_two_texts_are_cut_as_tokenizers_cut_them(pairs: TextCodec, tmp_path: Path, first: str, second: str) -> None:
    """Tokens, types and what is left of the longer text are the library's own."""
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    tokenizer.enable_truncation(16)
    expected = tokenizer.encode(first, second)

    encoded = pairs.encode_pair(first, second, truncate=True, field="text", pair_field="text_pair")

    assert encoded.token_types is not None
    assert encoded.token_ids.tolist() == expected.ids
    assert encoded.token_types.tolist() == expected.type_ids
    assert encoded.truncated == bool(expected.overflowing)
    spoken = [segment for segment in encoded.segments if not segment.special]
    offsets = [place for place, part in zip(expected.offsets, expected.sequence_ids, strict=True) if part is not None]
    assert [(segment.start, segment.end) for segment in spoken] == offsets
    assert [segment.part for segment in spoken] == [part for part in expected.sequence_ids if part is not None]


def test_two_long_texts_are_refused_unless_they_may_be_cut(pairs: TextCodec) -> None:
    """The error names the second text and the limit; an empty one is named, too."""
    with pytest.raises(InvalidInputError, match="at most 16") as refused:
        pairs.encode_pair("the cat " * 9, "the mat", truncate=False, field="text", pair_field="text_pair")
    assert refused.value.field == "text_pair"
    with pytest.raises(InvalidInputError, match="text_pair is empty"):
        pairs.encode_pair("the cat", "", truncate=False, field="text", pair_field="text_pair")

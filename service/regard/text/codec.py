"""Text to token ids and back, with where each token stands in its text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from regard.errors import InvalidInputError, PackageError
from regard.manifest import Package
from regard.text.cutter import Cut, Cutter
from regard.text.detokenizer import Detokenizer, Vocabulary, spans_of
from regard.text.segment import Segment, trim
from regard.text.stops import StopStrings

# A text longer than this for each token that the model takes is not worth tokenizing.
_CHARACTERS_PER_TOKEN = 64

_UNREADABLE = re.compile("[\0\ud800-\udfff]")


@dataclass(frozen=True, eq=False)
class EncodedText:
    """A text as the model takes it: `token_ids` [S], and whether it was cut."""

    token_ids: npt.NDArray[np.int64]
    truncated: bool
    _text: str
    _cut: Cut
    _kept: Sequence[int]

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """A segment for each token. Made when first asked for, so that only attention pays for it."""
        return _source_segments(self._text, self._cut, self._kept)


class TextCodec:
    """Encodes and decodes for one package; a package that reads no text only decodes.

    Safe to use from several threads. Raises `PackageError` if the package's tokenizer can't be read.
    """

    def __init__(self, package: Package) -> None:
        spec = package.manifest.text
        if spec is None:
            raise PackageError(f"{_label(package)} has no tokenizer")
        self._tokenizer = _load(package, spec.tokenizer_file)
        self._vocabulary = Vocabulary.of(self._tokenizer)
        self._sources = self._cutter(package, spec.source_pieces_file)
        self._targets = self._cutter(package, spec.target_pieces_file)
        special, limit = self._sources.tokenizer.num_special_tokens_to_add(is_pair=False), spec.max_source_tokens
        if limit is not None and special >= limit:
            raise PackageError(
                f"{_label(package)}: {special} special tokens leave no room for text in {limit} source tokens"
            )
        self._max_tokens = spec.max_source_tokens or 0
        self._max_characters = _CHARACTERS_PER_TOKEN * self._max_tokens

    def encode(self, text: str, *, truncate: bool, field: str) -> EncodedText:
        """Return the tokens of `text`, special tokens included.

        A text of more tokens than the model takes is cut there if `truncate` is set; the special
        tokens at its end stay. Raises `InvalidInputError`, naming `field`, if it isn't set, and for
        a text that is empty, nothing but white space, or holds NUL or a lone surrogate.
        """
        _check_readable(text, field)
        beyond = len(text) > self._max_characters
        if beyond and not truncate:
            raise InvalidInputError(
                f"{field} has {len(text)} characters, which is more than {self._max_characters}, the most for a model "
                f"of {self._max_tokens} tokens; shorten it or set truncate",
                field=field,
            )
        text = text[: self._max_characters]
        if text.isspace():
            raise InvalidInputError(
                f"{field} begins with {len(text)} characters of white space, which is all that can be read of it; "
                "remove them",
                field=field,
            )
        cut = self._sources.cut(text)
        found = len(cut.token_ids)
        if found > self._max_tokens and not truncate:
            raise InvalidInputError(
                f"{field} has {found} tokens, special tokens included; the model takes at most {self._max_tokens}; "
                "shorten it or set truncate",
                field=field,
            )
        limited = _kept(cut.encoding.special_tokens_mask, self._max_tokens)
        kept = [index for index in limited if cut.token_ids[index] is not None]
        if not kept:
            raise InvalidInputError(f"{field} holds nothing that the model's vocabulary knows", field=field)
        return EncodedText(
            token_ids=np.array([cut.token_ids[index] for index in kept], dtype=np.int64),
            truncated=beyond or found > self._max_tokens,
            _text=text,
            _cut=cut,
            _kept=kept,
        )

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of `token_ids`, without special tokens."""
        return self._vocabulary.decode(token_ids)

    def pieces(self, text: str) -> list[int]:
        """Return the tokens of a part of an output: those of `text` alone, without special tokens."""
        token_ids = self._targets.cut(text, add_special_tokens=False).token_ids
        return [token_id for token_id in token_ids if token_id is not None]

    def special_token(self, spelling: str) -> int | None:
        """Return the special token that is spelled so, such as a language's, if there is one."""
        token_id = self._tokenizer.token_to_id(spelling)
        return token_id if token_id in self._vocabulary.special_ids else None

    def ends_at_stop(self, stops: StopStrings) -> Callable[[Sequence[int]], bool]:
        """Return what tells whether a stop string ends within the last of some tokens."""
        return partial(stops.ends_within_last, self._vocabulary)

    def detokenizer(self) -> Detokenizer:
        """Return a new detokenizer, for one output."""
        return Detokenizer(self._vocabulary)

    def segments_of(self, token_ids: Sequence[int]) -> tuple[str, tuple[Segment, ...]]:
        """Return the text of `token_ids` and a segment for each of them.

        Tokens that share a character all span it. Special are those that decoding leaves out.
        """
        text = self.decode(token_ids)
        segments = []
        for token_id, span in zip(token_ids, spans_of(self._vocabulary, token_ids), strict=True):
            start, end = trim(text, *span)
            silent = self._vocabulary.is_silent(token_id)
            segments.append(Segment(self.spelling(token_id), start, end, silent, token_id))
        return text, tuple(segments)

    def special_segment(self, token_id: int) -> Segment:
        """Return the segment of a special token before the text, such as the decoder's start."""
        return Segment(self.spelling(token_id), 0, 0, True, token_id)

    def spelling(self, token_id: int) -> str:
        """Return a token as the vocabulary spells it; empty if it has none."""
        return self._tokenizer.id_to_token(token_id) or ""

    def _cutter(self, package: Package, pieces_file: str | None) -> Cutter:
        return Cutter(self._vocabulary, _load(package, pieces_file) if pieces_file else None)


def _load(package: Package, file: str) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(package.path(file)))
    except Exception as error:  # the library raises nothing narrower
        raise PackageError(f"{_label(package)}: {file} can't be read as a tokenizer; export it again") from error


def _label(package: Package) -> str:
    return f"package {package.manifest.name}/{package.manifest.version}"


def _check_readable(text: str, field: str) -> None:
    if not text:
        raise InvalidInputError(f"{field} is empty; it needs at least 1 character that is not white space", field=field)
    if text.isspace():
        raise InvalidInputError(
            f"{field} is nothing but white space; it needs at least 1 character that is not", field=field
        )
    found = _UNREADABLE.search(text)
    if found:
        code = ord(found[0])
        problem = f"a lone surrogate (U+{code:04X})" if code else "a NUL (U+0000)"
        raise InvalidInputError(
            f"{field} holds {problem} at position {found.start()}, which is no text; remove it", field=field
        )


def _kept(special_tokens_mask: Sequence[int], limit: int) -> list[int]:
    """Return the indices of at most `limit` tokens: the first ones, and the special ones at the end."""
    count = len(special_tokens_mask)
    if count <= limit:
        return list(range(count))
    tail = next(length for length in range(count) if not special_tokens_mask[count - 1 - length])
    return [*range(limit - tail), *range(count - tail, count)]


def _source_segments(text: str, cut: Cut, kept: Sequence[int]) -> tuple[Segment, ...]:
    """Return the segments of the `kept` tokens.

    Special are those that the tokenizer added; one that the text itself spells out stands there.
    """
    tokens, offsets, added = cut.encoding.tokens, cut.encoding.offsets, cut.encoding.special_tokens_mask
    segments: list[Segment] = []
    end = 0
    for index in kept:
        start = end
        if not added[index]:
            following = index + 1 < len(tokens) and not added[index + 1]
            limit = offsets[index + 1][0] if following else len(text)
            start, end = offsets[index]
            start, end = trim(text, start, _end_of_character(text, end, limit) if start < end else end)
        segments.append(Segment(tokens[index], start, end, bool(added[index]), cut.token_ids[index]))
    return tuple(segments)


def _end_of_character(text: str, end: int, limit: int) -> int:
    """Return `end` moved past the marks and syllable parts that normalization joined to the character before.

    The tokenizer's offsets give a composed character its first code point only.
    """
    while end < limit and (unicodedata.category(text[end]).startswith("M") or "\u1160" <= text[end] <= "\u11ff"):
        end += 1
    return end

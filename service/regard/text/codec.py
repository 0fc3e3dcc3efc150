"""Text to token ids and back, with where each token stands in its text."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from regard.errors import InvalidInputError, PackageError
from regard.manifest import Package
from regard.text.characters import check_characters, check_readable
from regard.text.cutter import Cut, Cutter
from regard.text.detokenizer import Detokenizer, Vocabulary, spans_of
from regard.text.segment import Segment, trim
from regard.text.stops import StopStrings

# About so many bytes of UTF-8 make a token, in most scripts.
_BYTES_PER_TOKEN = 4

CHARACTERS_PER_TOKEN = 64
"""A text longer than this for each token that there is room for is not worth tokenizing."""
MASKS = ("[MASK]", "<mask>")
"""How vocabularies spell the token that stands for one that is hidden."""
MAX_WINDOWS = 64
"""The most windows that one context may be read in."""
_WINDOW_OVERLAP = 128


@dataclass(frozen=True, eq=False)
class EncodedText:
    """A text as the model takes it: `token_ids` [S], and whether it was cut.

    `token_types` [S] tell which of two texts each token is of, if the model reads that; `pair` is the second
    text, if there is one.
    """

    token_ids: npt.NDArray[np.int64]
    truncated: bool
    token_types: npt.NDArray[np.int64] | None
    pair: str | None
    _text: str
    _cut: Cut
    _kept: Sequence[int]
    _stand_in: Segment | None = None
    """Of an empty text, the token that stands for it."""

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """A segment for each token. Made when first asked for, so that only attention pays for it."""
        if self._stand_in is not None:
            return (self._stand_in,)
        return _source_segments([self._text, *([] if self.pair is None else [self.pair])], self._cut, self._kept)

    def continuing(self, cutter: Cutter) -> list[bool]:
        """Tell, for each token, whether it goes on with the word before it; `cutter` cut the text."""
        return [cutter.continues_word(self._cut, index, self._text) for index in self._kept]

    @property
    def null_position(self) -> int | None:
        """The position of the special token that everything begins with, such as [CLS], if there is one."""
        return 0 if self.segments[0].special else None

    def span_of(self, first: int, last: int, *, whole_words: bool) -> tuple[int, int]:
        """Return where the tokens from `first` to `last` stand in their text, widened to words if asked to."""
        start, end = self.segments[first].start, self.segments[last].end
        text, part = self._text if self.pair is None else self.pair, int(self.pair is not None)
        if whole_words:
            encoding = self._cut.encoding
            words = [encoding.token_to_word(self._kept[position]) for position in (first, last)]
            spans = [encoding.word_to_chars(word, part) if word is not None else None for word in words]
            start = min(start, spans[0][0]) if spans[0] else start
            end = max(end, spans[1][1]) if spans[1] else end
        return trim(text, start, end)


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
        self._token_types = spec.token_types
        self._pad_token_id = spec.pad_token_id
        self._empty_token_id = spec.empty_token_id
        self._max_tokens = spec.max_source_tokens or 0
        self._padded = spec.padded_to is not None
        if spec.padded_to is not None:
            self._sources.pad(self._max_tokens, spec.padded_to, self.spelling(spec.pad_token_id))
        self._max_characters = CHARACTERS_PER_TOKEN * self._max_tokens

    def foresee(self, text: str, pair: str = "") -> int:
        """Return about how many tokens a text, or two together, will have, by their bytes alone."""
        if self._padded:
            return self._max_tokens
        size = sum(len(one[: self._max_characters].encode("utf-8", "surrogatepass")) for one in (text, pair))
        return min(1 + size // _BYTES_PER_TOKEN, self._max_tokens)

    def encode(self, text: str, *, truncate: bool, field: str) -> EncodedText:
        """Return the tokens of `text`, special tokens included.

        A text of more tokens than the model takes is cut there if `truncate` is set; the special
        tokens at its end stay. Raises `InvalidInputError`, naming `field`, if it isn't set, and for
        a text that is empty, nothing but white space, or holds NUL or a lone surrogate.
        """
        check_readable(text, field)
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
        return self._encoded(text, None, cut, kept, truncated=beyond or found > self._max_tokens)

    def encode_pair(self, text: str, pair: str, *, truncate: bool, field: str, pair_field: str) -> EncodedText:
        """Return the tokens of two texts together, special tokens included.

        Where they have more than the model takes and `truncate` is set, tokens are taken off the end of the
        longer, as tokenizers do. Raises `InvalidInputError` as `encode` does.
        """
        cut = self._cut_pair(text, pair, field, pair_field, self._max_characters)
        firsts, seconds = _parts(cut)
        excess = len(cut.token_ids) - self._max_tokens
        if excess > 0 and not truncate:
            raise InvalidInputError(
                f"{field} and {pair_field} have {len(cut.token_ids)} tokens together, special tokens included; the "
                f"model takes at most {self._max_tokens}; shorten them or set truncate",
                field=pair_field,
            )
        dropped: set[int] = set()
        if excess > 0:
            lengths = _shortened(len(firsts), len(seconds), len(firsts) + len(seconds) - excess)
            dropped = {*firsts[lengths[0] :], *seconds[lengths[1] :]}
        kept = [index for index in range(len(cut.token_ids)) if index not in dropped]
        return self._encoded(text, pair, cut, kept, truncated=excess > 0)

    def windows(
        self, question: str, context: str, *, window_tokens: int, overlap_tokens: int | None, field: str
    ) -> list[EncodedText]:
        """Return a question with each part of a context that the model reads at once, from the first on.

        A window holds at most `window_tokens`; each part begins with the last `overlap_tokens` of the one
        before. Raises `InvalidInputError`, naming what is below `field`, for texts that are none, for a
        question that leaves no room and a context that takes more than `MAX_WINDOWS`.
        """
        named = f"{field}.question", f"{field}.context"
        cut = self._cut_pair(question, context, *named, MAX_WINDOWS * self._max_characters)
        seconds = _parts(cut)[1]
        others = len(cut.token_ids) - len(seconds)
        room = min(window_tokens, self._max_tokens) - others
        if room < 1:
            raise InvalidInputError(
                f"{named[0]} has {others} tokens, special tokens included, which leaves no room for the context in a "
                f"window of {room + others}; shorten it or widen window_tokens",
                field=named[0],
            )
        overlap = min(_WINDOW_OVERLAP, room // 2) if overlap_tokens is None else overlap_tokens
        if overlap >= room:
            raise InvalidInputError(
                f"overlap_tokens is {overlap}; a window has room for {room} tokens of {named[1]}: it must be less",
                field="overlap_tokens",
            )
        count = 1 + max(0, -(-(len(seconds) - room) // (room - overlap)))
        if count > MAX_WINDOWS:
            raise InvalidInputError(
                f"{named[1]} takes {count} windows of {room} tokens; at most {MAX_WINDOWS} are read; shorten it, or "
                "lessen overlap_tokens",
                field=named[1],
            )
        lead, tail = range(seconds[0]), range(seconds[-1] + 1, len(cut.token_ids))
        return [
            self._encoded(question, context, cut, [*lead, *seconds[start : start + room], *tail], truncated=False)
            for start in range(0, count * (room - overlap), room - overlap)
        ]

    def subwords(self, encoded: EncodedText) -> list[bool]:
        """Tell, for each token of a text, whether it goes on with the word before it."""
        return encoded.continuing(self._sources)

    def _cut_pair(self, text: str, pair: str, field: str, pair_field: str, max_characters: int) -> Cut:
        for one, name in ((text, field), (pair, pair_field)):
            check_readable(one, name)
            if len(one) > max_characters:
                raise InvalidInputError(
                    f"{name} has {len(one)} characters; at most {max_characters} are read; shorten it", field=name
                )
        cut = self._sources.cut(text, pair)
        for indices, name in zip(_parts(cut), (field, pair_field), strict=True):
            if all(cut.token_ids[index] is None for index in indices):
                raise InvalidInputError(f"{name} holds nothing that the model's vocabulary knows", field=name)
        return cut

    def _encoded(
        self, text: str, pair: str | None, cut: Cut, indices: Sequence[int], *, truncated: bool
    ) -> EncodedText:
        kept = [index for index in indices if cut.token_ids[index] is not None]
        types = np.array([cut.encoding.type_ids[index] for index in kept], np.int64) if self._token_types else None
        return EncodedText(
            token_ids=np.array([cut.token_ids[index] for index in kept], dtype=np.int64),
            truncated=truncated,
            token_types=types,
            pair=pair,
            _text=text,
            _cut=cut,
            _kept=kept,
        )

    def encode_prompt(self, text: str, *, templated: bool = False, field: str) -> EncodedText:
        """Return the tokens of a text that is to be gone on from; white space is as good as any other.

        Of one that a chat template wrote, special tokens are those that it spells, and no others.
        Raises `InvalidInputError`, naming `field`, for one that leaves no room for more, that holds NUL
        or a lone surrogate, or no token at all in a model that has none for an empty text.
        """
        check_characters(text, field)
        cutter = self._templates if templated else self._sources
        cut = cutter.cut(text[: self._max_characters + 1])
        kept = [index for index, token_id in enumerate(cut.token_ids) if token_id is not None]
        if len(kept) > self._max_tokens or len(text) > self._max_characters:
            found = f"{len(text)} characters" if len(text) > self._max_characters else f"{len(kept)} tokens"
            raise InvalidInputError(
                f"{field} has {found}; the model takes a prompt of at most {self._max_tokens} tokens; shorten it",
                field=field,
            )
        token_ids, stand_in = [cut.token_ids[index] for index in kept], None
        if not token_ids:
            if self._empty_token_id is None or text:
                found = "nothing that the model's vocabulary knows" if text else "no token; it needs at least 1"
                raise InvalidInputError(f"{field} holds {found}", field=field)
            token_ids, stand_in = [self._empty_token_id], self.special_segment(self._empty_token_id)
        return EncodedText(np.array(token_ids, np.int64), False, None, None, text, cut, kept, stand_in)

    @cached_property
    def _templates(self) -> Cutter:
        """What cuts prompts of chat templates: another copy of the tokenizer, made when there is the first."""
        return Cutter(self._vocabulary, templated=True)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of `token_ids`, without special tokens."""
        return self._vocabulary.decode(token_ids)

    def pieces(self, text: str) -> list[int]:
        """Return the tokens of a part of an output: those of `text` alone, without special tokens."""
        token_ids = self._targets.cut(text, add_special_tokens=False).token_ids
        return [token_id for token_id in token_ids if token_id is not None]

    @property
    def cover_token_id(self) -> int:
        """The token that covers others so that they mean nothing.

        It is the mask token, which a model learns to find where it can't know the word; of a vocabulary that has
        none, the unknown one, which it finds where nobody could spell the word, or else the one that it is padded with.
        """
        found = [*map(self.special_token, MASKS), self._vocabulary.unknown_id, self._pad_token_id]
        return next(token_id for token_id in found if token_id is not None)

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

    @property
    def unknown_id(self) -> int | None:
        """The token that stands for what the vocabulary doesn't know; None if it knows everything."""
        return self._vocabulary.unknown_id

    def is_silent(self, token_id: int) -> bool:
        """Whether decoding leaves a token out."""
        return self._vocabulary.is_silent(token_id)

    def segments_of(self, token_ids: Sequence[int], *, unknowns: bool = False) -> tuple[str, tuple[Segment, ...]]:
        """Return the text of `token_ids` and a segment for each of them.

        Tokens that share a character all span it. Special are those that decoding leaves out: with
        `unknowns`, the unknown token isn't one, but spelled out in the text.
        """
        vocabulary = self._vocabulary.with_unknowns if unknowns else self._vocabulary
        text = vocabulary.decode(token_ids)
        segments = []
        for token_id, span in zip(token_ids, spans_of(vocabulary, token_ids), strict=True):
            start, end = trim(text, *span)
            silent = vocabulary.is_silent(token_id)
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


def _kept(special_tokens_mask: Sequence[int], limit: int) -> list[int]:
    """Return the indices of at most `limit` tokens: the first ones, and the special ones at the end."""
    count = len(special_tokens_mask)
    if count <= limit:
        return list(range(count))
    tail = next(length for length in range(count) if not special_tokens_mask[count - 1 - length])
    return [*range(limit - tail), *range(count - tail, count)]


def _parts(cut: Cut) -> tuple[list[int], list[int]]:
    """Return the indices of the tokens of the first text of a pair and of the second."""
    parts: tuple[list[int], list[int]] = ([], [])
    for index, (part, added) in enumerate(
        zip(cut.encoding.sequence_ids, cut.encoding.special_tokens_mask, strict=True)
    ):
        if part is not None and not added:
            parts[part].append(index)
    return parts


def _shortened(first: int, second: int, total: int) -> tuple[int, int]:
    """Return how long two texts may be together, of which the longer loses tokens first."""
    half = total // 2
    if min(first, second) > half:
        return (half, total - half) if first <= second else (total - half, half)
    return (first, max(total - first, 0)) if first <= second else (max(total - second, 0), second)


def _source_segments(texts: Sequence[str], cut: Cut, kept: Sequence[int]) -> tuple[Segment, ...]:
    """Return the segments of the `kept` tokens, of one text or two.

    Special are those that the tokenizer added; one that the text itself spells out stands there.
    """
    tokens, offsets, added = cut.encoding.tokens, cut.encoding.offsets, cut.encoding.special_tokens_mask
    parts = cut.encoding.sequence_ids if len(texts) > 1 else [0] * len(tokens)
    segments: list[Segment] = []
    end = part = 0
    for index in kept:
        start = end
        if not added[index]:
            start, part = (end, part) if (parts[index] or 0) == part else (0, parts[index] or 0)
            text = texts[part]
            following = index + 1 < len(tokens) and not added[index + 1] and parts[index + 1] == parts[index]
            limit = offsets[index + 1][0] if following else len(text)
            start, end = offsets[index]
            start, end = trim(text, start, _end_of_character(text, end, limit) if start < end else end)
        segments.append(Segment(tokens[index], start, end, bool(added[index]), cut.token_ids[index], part))
    return tuple(segments)


def _end_of_character(text: str, end: int, limit: int) -> int:
    """Return `end` moved past the marks and syllable parts that normalization joined to the character before.

    The tokenizer's offsets give a composed character its first code point only.
    """
    while end < limit and (unicodedata.category(text[end]).startswith("M") or "\u1160" <= text[end] <= "\u11ff"):
        end += 1
    return end

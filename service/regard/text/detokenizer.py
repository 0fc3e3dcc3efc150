"""Token ids to text, one at a time: each token's share of the text, and where it stands there.

Decoders are not local: Metaspace drops the space before the first token, a character of several
bytes may take several tokens, and one stray byte spoils the whole run of byte-fallback tokens
around it. The Detokenizer decodes a short window of tokens again at every push, and holds back
what a later token could still change. (`tokenizers.decoders.DecodeStream` raises at such a byte,
and never gives what stays incomplete at the end.)
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from tokenizers import Tokenizer

from regard.text.panics import panics_caught

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

# UTF-8 needs at most three bytes, so three tokens, before the one that completes a character.
_CONTEXT = 4


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What detokenizing needs of a tokenizer.

    `special_ids` are left out of every text. `byte_of` gives the byte of each byte-fallback token,
    such as `<0xE2>`; it is empty unless the decoder joins them. `unknown_id` stands for what the
    vocabulary doesn't know; None if it knows everything.
    """

    tokenizer: Tokenizer
    special_ids: frozenset[int]
    byte_of: Mapping[int, int]
    unknown_id: int | None

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Vocabulary:
        """Read what the tokenizer's own description says."""
        added = tokenizer.get_added_tokens_decoder()
        description = json.loads(tokenizer.to_str())
        decoder = description["decoder"]
        return cls(
            tokenizer=tokenizer,
            special_ids=frozenset(token_id for token_id, token in added.items() if token.special),
            byte_of=_bytes_of(tokenizer) if decoder and "ByteFallback" in _decoder_types(decoder) else {},
            unknown_id=_unknown_of(tokenizer, description["model"]),
        )

    @property
    def with_unknowns(self) -> Vocabulary:
        """The same vocabulary, of texts in which the unknown token is spelled out."""
        return replace(self, special_ids=self.special_ids - {self.unknown_id})

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of `token_ids`, without special tokens. Raises `EngineError` where the decoder panics."""
        spoken = [token_id for token_id in token_ids if token_id not in self.special_ids]
        with panics_caught():
            return str(self.tokenizer.decode(spoken, skip_special_tokens=False))

    def is_silent(self, token_id: int) -> bool:
        """Whether decoding leaves the token out: it is special, or not in the vocabulary."""
        return token_id in self.special_ids or self.tokenizer.id_to_token(token_id) is None


def _unknown_of(tokenizer: Tokenizer, model: Mapping[str, Any]) -> int | None:
    token_id: int | None = model.get("unk_id")
    spelling = model.get("unk_token")
    return token_id if spelling is None else tokenizer.token_to_id(spelling)


def _decoder_types(decoder: Mapping[str, Any]) -> Iterator[str]:
    yield decoder["type"]
    for part in decoder.get("decoders", ()):
        yield from _decoder_types(part)


def _bytes_of(tokenizer: Tokenizer) -> dict[int, int]:
    names = (
        (re.fullmatch("<0x([0-9A-Fa-f]{2})>", token), token_id) for token, token_id in tokenizer.get_vocab().items()
    )
    return {token_id: int(name[1], 16) for name, token_id in names if name}


class Detokenizer:
    """Turns tokens into text as they come.

    What `push` and `finish` return, put together, is the decoding of all tokens at once. Work and
    memory per token are bounded, but for a run of byte-fallback tokens, which is decoded once, at
    its end. `position` counts the code points given out; `length` counts also the one that is
    held back because its character may be incomplete.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._window: list[int] = []
        self._given = 0  # code points of the window's text
        self._run: list[int] = []
        self.position = 0
        self.length = 0

    def push(self, token_id: int) -> str:
        """Return what `token_id` adds to the text; empty if the next tokens may still change it."""
        if self._vocabulary.is_silent(token_id):
            return ""
        if token_id in self._vocabulary.byte_of:
            self._run.append(token_id)
            return ""
        delta = self.end_run() + self._extend([token_id])
        if len(self._window) > 2 * _CONTEXT:
            self._shorten()
        return delta

    def end_run(self) -> str:
        """Return the text of the byte-fallback tokens that were waiting for the end of their run."""
        run, self._run = self._run, []
        return self._extend(run) if run else ""

    def finish(self) -> str:
        """Return what was held back, when no more tokens come."""
        rest = self.end_run()
        held = self.length - self.position
        self.position = self.length
        return rest + _REPLACEMENT * held

    def _shorten(self) -> None:
        """Forget tokens that no longer matter; not before a visible one, as decoders strip a text's white space."""
        window = self._window[-_CONTEXT:]
        text = self._vocabulary.decode(window)
        if text and not text.isspace():
            self._window = window
            self._given = len(text) - text.endswith(_REPLACEMENT)

    def _extend(self, token_ids: list[int]) -> str:
        self._window += token_ids
        text = self._vocabulary.decode(self._window)
        settled = len(text) - text.endswith(_REPLACEMENT)
        delta = text[self._given : settled]
        self._given = settled
        self.position += len(delta)
        self.length = self.position + len(text) - settled
        return delta


def spans_of(vocabulary: Vocabulary, token_ids: Sequence[int]) -> list[tuple[int, int]]:
    """Return where each token stands in the decoding of all, in code points.

    Every token that has a share in a character spans all of it, so spans may overlap. A silent token
    has an empty span, where the token before it ends.
    """
    found: dict[int, tuple[int, int]] = {}
    detokenizer = Detokenizer(vocabulary)
    run: dict[int, int] = {}
    for index, token_id in enumerate(token_ids):
        if vocabulary.is_silent(token_id):
            continue
        if token_id in vocabulary.byte_of:
            run[index] = vocabulary.byte_of[token_id]
            detokenizer.push(token_id)
            continue
        found |= _spans_of_run(detokenizer, run)
        run = {}
        start, held = detokenizer.position, detokenizer.length > detokenizer.position
        delta = detokenizer.push(token_id)
        # A character that was held back is this token's too, unless it stays broken.
        broken = held and delta.startswith(_REPLACEMENT)
        found[index] = start + broken, detokenizer.length
    found |= _spans_of_run(detokenizer, run)

    spans, end = [], 0
    for index in range(len(token_ids)):
        spans.append(found.get(index, (end, end)))
        end = spans[-1][1]
    return spans


def _spans_of_run(detokenizer: Detokenizer, run: Mapping[int, int]) -> dict[int, tuple[int, int]]:
    """End the run of byte-fallback tokens; return where each stands, by its index. `run` holds their bytes."""
    if not run:
        return {}
    start = detokenizer.position
    detokenizer.end_run()
    characters = _characters_of(bytes(run.values()))
    # The text has fewer where the decoder strips the space that it begins with.
    stripped = characters[-1] + 1 - (detokenizer.length - start)
    places = (start + max(0, character - stripped) for character in characters)
    return {index: (place, min(place + 1, detokenizer.length)) for index, place in zip(run, places, strict=True)}


def _characters_of(run: bytes) -> list[int]:
    """Return the character that each byte of a run is part of: its own, if the run is not UTF-8."""
    try:
        run.decode()
    except UnicodeDecodeError:
        return list(range(len(run)))
    return [count - 1 for count in accumulate(byte & 0xC0 != 0x80 for byte in run)]

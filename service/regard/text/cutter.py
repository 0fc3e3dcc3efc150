"""Texts to tokens of a vocabulary: nothing that a text says is taken for a special token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from tokenizers import Encoding, Tokenizer

from regard.text.detokenizer import Vocabulary
from regard.text.panics import panics_caught


@dataclass(frozen=True, eq=False)
class Cut:
    """A text in tokens: the tokenizer's own account of it, and each token's id, None for one to leave out."""

    encoding: Encoding
    token_ids: list[int | None]


class Cutter:
    """Cuts texts into tokens.

    `pieces` is a tokenizer whose tokens are looked up in the vocabulary by their spelling, as with
    SentencePiece models whose vocabulary is a file of its own; None if the vocabulary's tokenizer
    cuts texts itself. A text that spells a special token, such as `</s>`, is cut up like any other;
    where the tokenizer can't help finding the special token, the unknown one stands for it, or none
    if there is no such. One that is `templated` does the opposite: it reads special tokens where
    they are written, as a chat template writes them, and adds none.
    """

    def __init__(self, vocabulary: Vocabulary, pieces: Tokenizer | None = None, *, templated: bool = False) -> None:
        self.tokenizer = pieces or vocabulary.tokenizer
        if templated:
            self.tokenizer = Tokenizer.from_str(self.tokenizer.to_str())
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self.tokenizer.encode_special_tokens = not templated
        self._prefixes = bool(getattr(self.tokenizer.model, "continuing_subword_prefix", None))
        self._templated = templated
        self._barred_ids = frozenset() if templated else vocabulary.special_ids
        self._unknown_id = vocabulary.unknown_id
        self._id_of: Mapping[str, int] | None = vocabulary.tokenizer.get_vocab() if pieces else None

    def cut(self, text: str, pair: str | None = None, *, add_special_tokens: bool = True) -> Cut:
        """Return the tokens of `text`, and of the second of two texts behind it.

        Raises `EngineError` where the tokenizer panics.
        """
        with panics_caught():
            added = add_special_tokens and not self._templated
            encoding = self.tokenizer.encode(text, pair, add_special_tokens=added)
        if self._id_of is None:
            found: list[int | None] = list(encoding.ids)
        else:
            found = [self._id_of.get(token) for token in encoding.tokens]
        token_ids = [
            token_id if added or (token_id is not None and token_id not in self._barred_ids) else self._unknown_id
            for token_id, added in zip(found, encoding.special_tokens_mask, strict=True)
        ]
        return Cut(encoding, token_ids)

    def pad(self, length: int, side: Literal["left", "right"], token: str) -> None:
        """Let every text have `length` tokens at least: those that it lacks are `token`, and count as special."""
        self.tokenizer.enable_padding(
            direction=side, length=length, pad_token=token, pad_id=self.tokenizer.token_to_id(token)
        )

    def continues_word(self, cut: Cut, index: int, text: str) -> bool:
        """Tell whether a token goes on with the word before it, as Transformers' pipelines tell.

        Where the vocabulary marks such tokens, as WordPiece does, a token that is spelled longer than what
        it stands for is one; elsewhere one that no space precedes. An unknown one never is.
        """
        start, end = cut.encoding.offsets[index]
        if cut.encoding.ids[index] == self._unknown_id:
            return False
        if self._prefixes:
            return len(cut.encoding.tokens[index]) != end - start
        return start > 0 and " " not in text[start - 1 : start + 1]

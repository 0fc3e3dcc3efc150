"""Random texts of known lengths: what every contestant is given to translate."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

SHORTEST, LONGEST = 10, 40


@dataclass(frozen=True, slots=True)
class Source:
    """One text, and the tokens that it encodes to, the end of the sentence included."""

    text: str
    token_ids: list[int]
    tokens: list[str]


def random_sources(tokenizer_file: Path, count: int, seed: int) -> list[Source]:
    """Return `count` texts of 10 to 40 tokens, evenly spread, in words that are one token each."""
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    chance = random.Random(seed)
    pieces = sorted(piece for piece in tokenizer.get_vocab() if piece.startswith("▁") and piece[1:].isalnum())
    words: list[str] = []
    while len(words) < LONGEST * 10:
        word = chance.choice(pieces)[1:]
        if len(tokenizer.encode(word, add_special_tokens=False).ids) == 1:
            words.append(word)
    sources = []
    for number in range(count):
        length = SHORTEST + (LONGEST - SHORTEST) * number // max(1, count - 1)
        text = " ".join(chance.choices(words, k=length - 1))
        encoding = tokenizer.encode(text)
        if len(encoding.ids) != length:
            raise ValueError(f"{len(encoding.ids)} tokens came of {length - 1} words of one token each: {text}")
        sources.append(Source(text, encoding.ids, encoding.tokens))
    chance.shuffle(sources)
    return sources

"""Random texts of known lengths, and how many tokens to make of each: what every contestant is given."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

SHORTEST, LONGEST = 10, 40
TARGET_TOKENS = 32
SHORTEST_SKEWED, MEDIAN_SKEWED, LONGEST_SKEWED = 5, 30, 200
SPREAD = 0.75
"""Standard deviation of the logarithm of skewed lengths: one text of twenty is 3.4 times the median or longer."""
SPREAD_OF_RATIO = 0.2
"""Standard deviation of the logarithm of a translation's length over its source's."""


@dataclass(frozen=True, slots=True)
class Source:
    """One text, the tokens that it encodes to, the end of the sentence included, and how many are to come of it."""

    text: str
    token_ids: list[int]
    tokens: list[str]
    target_tokens: int = TARGET_TOKENS


@dataclass(frozen=True, slots=True)
class Length:
    """The tokens of a source, the end of the sentence included, and of its translation."""

    source: int
    target: int


def uniform_lengths(count: int) -> list[Length]:
    """Return sources of 10 to 40 tokens, evenly spread, with 32 tokens to come of each."""
    span = LONGEST - SHORTEST
    return [Length(SHORTEST + span * number // max(1, count - 1), TARGET_TOKENS) for number in range(count)]


def skewed_lengths(count: int, seed: int) -> list[Length]:
    """Return log-normal lengths from 5 to 200 of both texts; a translation is about as long as its source.

    What lies outside is drawn again, so that no length is more frequent than its neighbours.
    """
    chance = random.Random(seed)
    lengths: list[Length] = []
    while len(lengths) < count:
        source = MEDIAN_SKEWED * chance.lognormvariate(0, SPREAD)
        length = Length(round(source), round(source * chance.lognormvariate(0, SPREAD_OF_RATIO)))
        if all(SHORTEST_SKEWED <= tokens <= LONGEST_SKEWED for tokens in (length.source, length.target)):
            lengths.append(length)
    return lengths


def random_sources(tokenizer_file: Path, lengths: Sequence[Length], seed: int) -> list[Source]:
    """Return a text for each length, in words that are one token each, shuffled."""
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    chance = random.Random(seed)
    pieces = sorted(piece for piece in tokenizer.get_vocab() if piece.startswith("▁") and piece[1:].isalnum())
    words: list[str] = []
    while len(words) < LONGEST * 10:
        word = chance.choice(pieces)[1:]
        if len(tokenizer.encode(word, add_special_tokens=False).ids) == 1:
            words.append(word)
    sources = []
    for length in lengths:
        text = " ".join(chance.choices(words, k=length.source - 1))
        encoding = tokenizer.encode(text)
        if len(encoding.ids) != length.source:
            raise ValueError(f"{len(encoding.ids)} tokens came of {length.source - 1} words of one token each: {text}")
        sources.append(Source(text, encoding.ids, encoding.tokens, length.target))
    chance.shuffle(sources)
    return sources


def longest_first(sources: Sequence[Source]) -> list[Source]:
    """Return the sources by length, as a caller sorts them who has them all at once."""
    return sorted(sources, key=lambda source: len(source.token_ids), reverse=True)

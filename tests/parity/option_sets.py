"""What is asked of a search, by name, each with options drawn for one model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from regard.manifest import GenerationSpec

MAX_NEW_TOKENS = 24


@dataclass(frozen=True, slots=True)
class Draw:
    """Where a request's tokens, words and seeds come from."""

    random: np.random.Generator
    spec: GenerationSpec

    def token(self) -> int:
        """Return a token that is not special."""
        return self.tokens(1)[0]

    def tokens(self, count: int) -> tuple[int, ...]:
        """Return some tokens that are not special, each once."""
        special = {self.spec.pad_token_id, self.spec.start_token_id, *self.spec.eos_token_ids}
        ordinary = [token for token in range(self.spec.vocabulary_size) if token not in special and token > 3]
        return tuple(self.random.choice(ordinary, count, replace=False).tolist())

    def many(self) -> tuple[int, ...]:
        """Return a third of the vocabulary: some of it would have come."""
        return self.tokens(min(self.spec.vocabulary_size // 3, 1000))

    def words(self) -> tuple[tuple[int, ...], ...]:
        """Return words of one token and of two, enough for some to come otherwise."""
        single, pairs = self.tokens(min(self.spec.vocabulary_size // 4, 400)), self.tokens(40)
        return (*((token,) for token in single), *zip(pairs[::2], pairs[1::2], strict=True))

    def seed(self) -> int:
        """Return a request's own seed."""
        return int(self.random.integers(2**63))


Ask = Callable[[Draw], dict[str, Any]]
STOPS = ("7", "w4", "es", " la", "and")
"""Ends of words, words and beginnings of words, in the texts of random models and of real ones."""
SAMPLE = {"do_sample": True, "top_k": 0}


def everything(draw: Draw) -> dict[str, Any]:
    """Return every rule at once; what is forced can't be suppressed or a bad word, too."""
    forced, *suppressed = draw.tokens(10)
    return {
        "repetition_penalty": 1.2,
        "no_repeat_ngram_size": 2,
        "min_new_tokens": 8,
        "bad_words_ids": tuple(word for word in draw.words() if word != (forced,)),
        "suppress_tokens": tuple(suppressed),
        "forced_bos_token_id": forced,
        "top_logprobs": 2,
    }


OPTION_SETS: dict[str, Ask] = {
    "greedy": lambda draw: {},
    "greedy, short": lambda draw: {"max_new_tokens": 5},
    "greedy, long": lambda draw: {"min_new_tokens": 20},
    "greedy, penalty": lambda draw: {"repetition_penalty": 1.3},
    "greedy, bonus": lambda draw: {"repetition_penalty": 0.8},
    "greedy, no 1-gram twice": lambda draw: {"no_repeat_ngram_size": 1},
    "greedy, no 3-gram twice": lambda draw: {"no_repeat_ngram_size": 3},
    "greedy, bad words": lambda draw: {"bad_words_ids": draw.words()},
    "greedy, suppressed": lambda draw: {"suppress_tokens": draw.many()},
    "greedy, suppressed first": lambda draw: {"begin_suppress_tokens": draw.many()},
    "greedy, first forced": lambda draw: {"forced_bos_token_id": draw.token()},
    "greedy, last forced": lambda draw: {"forced_eos_token_id": draw.token(), "max_new_tokens": 6},
    "greedy, prefix": lambda draw: {"prefix_token_ids": draw.tokens(4)},
    "greedy, prefix and bans": lambda draw: {
        "prefix_token_ids": draw.tokens(3),
        "no_repeat_ngram_size": 2,
        "min_new_tokens": 6,
        "begin_suppress_tokens": draw.many(),
    },
    "greedy, stop strings": lambda draw: {"stop_strings": STOPS},
    "greedy, likeliest tokens": lambda draw: {"top_logprobs": 5},
    "greedy, everything": everything,
    "beams": lambda draw: {"num_beams": 4, "num_return_sequences": 4},
    "beams, two": lambda draw: {"num_beams": 2, "num_return_sequences": 1},
    "beams, eight": lambda draw: {"num_beams": 8, "num_return_sequences": 5, "max_new_tokens": 12},
    "beams, early": lambda draw: {"num_beams": 4, "early_stopping": True, "num_return_sequences": 2},
    "beams, never": lambda draw: {"num_beams": 3, "early_stopping": "never", "num_return_sequences": 3},
    # Its penalty makes some hundreds of a sum of 24 log-probabilities, of which float32 knows 5e-4, eager or not.
    "beams, never, short": lambda draw: {"num_beams": 3, "early_stopping": "never", "length_penalty": -0.5},
    "beams, long": lambda draw: {"num_beams": 5, "length_penalty": 2.0, "num_return_sequences": 5},
    "beams, unnormalized": lambda draw: {"num_beams": 3, "length_penalty": 0.0, "num_return_sequences": 3},
    "beams, penalty": lambda draw: {"num_beams": 4, "repetition_penalty": 1.3, "num_return_sequences": 2},
    "beams, no 2-gram twice": lambda draw: {"num_beams": 3, "no_repeat_ngram_size": 2, "min_new_tokens": 8},
    "beams, bad words": lambda draw: {"num_beams": 3, "bad_words_ids": draw.words(), "num_return_sequences": 2},
    "beams, suppressed": lambda draw: {"num_beams": 4, "suppress_tokens": draw.many(), "num_return_sequences": 2},
    "beams, first and last forced": lambda draw: {
        "num_beams": 4,
        "forced_bos_token_id": draw.token(),
        "forced_eos_token_id": draw.token(),
        "max_new_tokens": 7,
    },
    "beams, prefix": lambda draw: {"num_beams": 4, "prefix_token_ids": draw.tokens(4), "num_return_sequences": 2},
    "beams, stop strings": lambda draw: {"num_beams": 3, "stop_strings": STOPS, "num_return_sequences": 2},
    "samples": lambda draw: SAMPLE | {"seed": draw.seed()},
    "samples, top-k": lambda draw: SAMPLE | {"seed": draw.seed(), "temperature": 0.7, "top_k": 10},
    "samples, top-p": lambda draw: SAMPLE | {"seed": draw.seed(), "top_p": 0.8, "num_return_sequences": 3},
    "samples, min-p": lambda draw: SAMPLE | {"seed": draw.seed(), "min_p": 0.1, "temperature": 1.8},
    "samples, every warper": lambda draw: {
        "do_sample": True,
        "seed": draw.seed(),
        "temperature": 1.4,
        "top_k": 40,
        "top_p": 0.9,
        "min_p": 0.02,
        "num_return_sequences": 2,
    },
    "samples, processors": lambda draw: {
        "do_sample": True,
        "seed": draw.seed(),
        "repetition_penalty": 1.2,
        "no_repeat_ngram_size": 2,
        "min_new_tokens": 5,
        "bad_words_ids": draw.words(),
    },
    "samples, prefix": lambda draw: SAMPLE | {"seed": draw.seed(), "top_p": 0.9, "prefix_token_ids": draw.tokens(3)},
    "alternatives": lambda draw: {"alternatives_position": 0, "num_return_sequences": 4},
    "alternatives, later": lambda draw: {
        "alternatives_position": 3,
        "num_return_sequences": 3,
        "no_repeat_ngram_size": 2,
    },
}

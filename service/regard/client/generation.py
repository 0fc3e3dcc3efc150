"""How a caller may ask for an output to be searched, and the message that asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypedDict

from regard.errors import InvalidInputError
from regard.v1 import generation_pb2


class GenerationOptions(TypedDict, total=False):
    """The options of a search, all optional; the names are those of Transformers where it has them.

    What is absent is as the model's checkpoint asks, and otherwise greedy, to the end of the
    sentence. `protos/regard/v1/generation.proto` has the ranges, and what goes with what.
    """

    max_new_tokens: int
    """The most tokens to generate, the end of the sentence included. Default: the model's limit."""
    min_new_tokens: int
    """The fewest tokens to generate before the end of the sentence may come."""
    num_beams: int
    """Beams of a beam search; 1 is greedy search, or sampling."""
    length_penalty: float
    """The power of the length that a beam's score is divided by: above 0 favours long sequences."""
    early_stopping: bool | Literal["never"]
    """When a beam search ends: True as soon as `num_beams` sequences have, "never" when none can be bettered."""
    num_return_sequences: int
    """Sequences to return, the best first. Default: 1."""
    do_sample: bool
    """Whether tokens are drawn by their probability instead of chosen."""
    temperature: float
    """What scores are divided by before drawing."""
    top_k: int
    """How many of the likeliest tokens are drawn from; 0 is all."""
    top_p: float
    """The fewest likeliest tokens whose probabilities sum to this are drawn from."""
    min_p: float
    """Tokens of at least this share of the likeliest one's probability are drawn from."""
    seed: int
    """Where the draws begin: the same seed gives the same text; of a model in int8, if nothing else runs beside it."""
    repetition_penalty: float
    """Above 1 discourages tokens that were there before."""
    no_repeat_ngram_size: int
    """The length in tokens of the runs of which none comes twice."""
    bad_words: Sequence[str]
    """Texts that must not come."""
    bad_words_ids: Sequence[Sequence[int]]
    """The same as tokens."""
    suppress_tokens: Sequence[int]
    """Tokens that must not come."""
    forced_bos_token_id: int
    """The token that must come first."""
    forced_eos_token_id: int
    """The token that must come last if `max_new_tokens` is reached."""
    target_language: str
    """The language to write, as the tokenizer spells its token, such as "fr_XX"."""
    target_prefix: str
    """The text that the output begins with."""
    stop_strings: Sequence[str]
    """Texts that end the output, which is cut before them."""
    alternatives_position: int
    """Where the sequences of `num_return_sequences` part, each with another of the likeliest tokens.

    An output that ends before it comes back as one sequence.
    """
    token_logprobs: bool
    """Whether the results list their tokens, each with its log-probability."""
    top_logprobs: int
    """How many of the likeliest tokens the results list at each position."""
    return_scores: bool
    """Whether log-probabilities and scores are told; False leaves them at NaN, and may save their computation."""


_EARLY_STOPPING = {
    False: generation_pb2.EARLY_STOPPING_FALSE,
    True: generation_pb2.EARLY_STOPPING_TRUE,
    "never": generation_pb2.EARLY_STOPPING_NEVER,
}
_AT_LEAST_ONE = ("max_new_tokens", "num_return_sequences")
"""In the message, 0 means that they are absent."""


def generation_message(options: GenerationOptions) -> generation_pb2.GenerationOptions:
    """Return the message that asks for a search; an option that is None is absent.

    Raises `InvalidInputError`, naming the option, for what can't be sent at all; the server judges
    the rest.
    """
    message = generation_pb2.GenerationOptions()
    for name in GenerationOptions.__annotations__:
        value: Any = options.get(name)
        if value is None:
            continue
        field = f"generation.{name}"
        if name in _AT_LEAST_ONE and isinstance(value, int) and value < 1:
            raise InvalidInputError(f"{field} must be at least 1, not {value}", field=field)
        try:
            _set(message, name, value)
        except (TypeError, ValueError, KeyError) as error:
            raise InvalidInputError(f"{field} can't be {value!r}", field=field) from error
    return message


def _set(message: generation_pb2.GenerationOptions, name: str, value: Any) -> None:
    if name == "early_stopping":
        message.early_stopping = _EARLY_STOPPING[value]
    elif name == "bad_words_ids":
        message.bad_words_ids.extend(generation_pb2.TokenIds(token_ids=word) for word in value)
    elif name in ("bad_words", "suppress_tokens", "stop_strings"):
        if isinstance(value, str):
            raise TypeError("one string is no sequence of strings")
        getattr(message, name).extend(value)
    else:
        setattr(message, name, value)

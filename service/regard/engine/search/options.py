"""What a request may ask of the search, and which combinations can't be honoured."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from regard.errors import InvalidInputError
from regard.manifest import GenerationDefaults, GenerationSpec

MAX_TOP_LOGPROBS = 32
MAX_LISTED_TOKENS = 1024
"""The most tokens that a list of them may hold, all words of it together."""
_LARGEST_EXPONENT = 10.0
_MOST_EXTREME_PENALTY = 100.0

EndsAtStop = Callable[[Sequence[int]], bool]
"""Tells whether the text of some tokens has a stop string that ends within the last of them."""


@dataclass(frozen=True, slots=True)
class GenerationOptions:
    """How one request is searched for; what `generate()` has, it calls by the same name.

    `prefix_token_ids` stand at the beginning of every sequence; all counts and positions start
    behind them. Of `prefix_choices`, if there are any, the likeliest takes the place of the prefix'
    first token. With `first_timestamp_token_id`, the tokens from there on are times, which Whisper's
    rule puts into the text; it begins with one up to `max_initial_timestamp_index`.
    `alternatives_position` is where `num_return_sequences` sequences part, each with another of the
    likeliest tokens; they are one if it ends before. `top_logprobs` is how many of the likeliest
    tokens are told at every position.
    Without `return_scores` no log-probability and no score is told, nor computed where the search needs none.
    Where there are `target_token_ids`, nothing is searched for: they are the output, and are scored.
    """

    max_new_tokens: int
    min_new_tokens: int = 0
    num_beams: int = 1
    num_return_sequences: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    bad_words_ids: tuple[tuple[int, ...], ...] = ()
    suppress_tokens: tuple[int, ...] = ()
    begin_suppress_tokens: tuple[int, ...] = ()
    forced_bos_token_id: int | None = None
    forced_eos_token_id: int | None = None
    prefix_token_ids: tuple[int, ...] = ()
    prefix_choices: tuple[int, ...] = ()
    first_timestamp_token_id: int | None = None
    max_initial_timestamp_index: int | None = None
    alternatives_position: int | None = None
    top_logprobs: int = 0
    return_scores: bool = True
    ends_at_stop: EndsAtStop | None = None
    target_token_ids: tuple[int, ...] = ()

    @property
    def width(self) -> int:
        """The number of rows that the request takes."""
        return max(self.num_beams, self.num_return_sequences)

    @property
    def needs_probabilities(self) -> bool:
        """Whether a step must say how likely its tokens are, for the search if not for whoever asked."""
        return self.return_scores or self.num_beams > 1


def options_of(
    spec: GenerationSpec, given: Mapping[str, Any], prompt_tokens: int = 1, fixed_tokens: int = 0
) -> GenerationOptions:
    """Return the checkpoint's own options with those that a request has `given` in their place.

    `prompt_tokens` are read before what is generated: the start token, or a completion's prompt. The
    first `fixed_tokens` of the prefix are the task's, not the request's. Bad words are added to the
    checkpoint's own; its minimum gives way to a maximum that is less.
    Raises `InvalidInputError` for a value out of range and for a combination that can't be
    honoured; it names the option as `generation.NAME`.
    """
    defaults = spec.defaults
    prefix = given.get("prefix_token_ids", ())
    before = prompt_tokens + len(prefix)
    room = spec.max_target_tokens + 1 - before
    if room < 1:
        own_tokens, limit = len(prefix) - fixed_tokens, max(spec.max_target_tokens - prompt_tokens - fixed_tokens, 0)
        raise _refused("target_prefix", f"has {own_tokens} tokens; the most that leaves room for more is {limit}")
    own = {option.name: getattr(defaults, option.name) for option in fields(GenerationOptions) if option.name in _OWN}
    own["max_new_tokens"] = given.get("max_new_tokens") or _most_new(defaults, before, room)
    least = defaults.min_length - before if defaults.min_new_tokens is None else defaults.min_new_tokens
    own["min_new_tokens"] = max(min(least, own["max_new_tokens"]), 0)
    own["forced_bos_token_id"] = spec.forced_bos_token_id
    own["forced_eos_token_id"] = spec.forced_eos_token_id
    own["bad_words_ids"] = (*defaults.bad_words_ids, *given.get("bad_words_ids", ()))
    options = GenerationOptions(**own | {name: value for name, value in given.items() if name != "bad_words_ids"})
    _check_ranges(options, spec, room)
    _check_tokens(options, spec)
    _check_combination(options, given)
    _check_forced(spec, given)
    return options


def scoring(target_token_ids: Sequence[int]) -> GenerationOptions:
    """Return the options that score an output, from behind the start token to its end, instead of searching for one."""
    count = len(target_token_ids)
    return GenerationOptions(max_new_tokens=count, min_new_tokens=count, target_token_ids=tuple(target_token_ids))


def _most_new(defaults: GenerationDefaults, before: int, room: int) -> int:
    """Return how many tokens to generate at most behind so many others, if the request doesn't say."""
    if defaults.max_new_tokens is not None:
        return min(defaults.max_new_tokens, room)
    if defaults.max_length is None:
        return room
    if defaults.max_length <= before:
        raise _refused(
            "max_new_tokens", f"must be set: the checkpoint's own max_length {defaults.max_length} is reached"
        )
    return min(defaults.max_length - before, room)


_OWN = {
    "num_beams",
    "length_penalty",
    "early_stopping",
    "do_sample",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "no_repeat_ngram_size",
    "begin_suppress_tokens",
}
"""The options that a checkpoint's own configuration may set."""


def _check_ranges(options: GenerationOptions, spec: GenerationSpec, room: int) -> None:
    for name, low, high in (
        ("max_new_tokens", 1, room),
        ("min_new_tokens", 0, options.max_new_tokens),
        ("num_beams", 1, max(spec.vocabulary_size // 4, 1)),
        ("num_return_sequences", 1, max(spec.vocabulary_size // 4, 1)),
        ("length_penalty", -_LARGEST_EXPONENT, _LARGEST_EXPONENT),
        ("temperature", 1 / _MOST_EXTREME_PENALTY, _MOST_EXTREME_PENALTY),
        ("top_k", 0, 2**31 - 1),
        ("top_p", 0.0, 1.0),
        ("min_p", 0.0, 1.0),
        ("seed", 0, 2**64 - 1),
        ("repetition_penalty", 1 / _MOST_EXTREME_PENALTY, _MOST_EXTREME_PENALTY),
        ("no_repeat_ngram_size", 0, 2**31 - 1),
        ("top_logprobs", 0, min(MAX_TOP_LOGPROBS, spec.vocabulary_size)),
        ("alternatives_position", 0, max(_free_tokens(options) - 1, 0)),
    ):
        value = getattr(options, name)
        if value is not None and not (math.isfinite(value) and low <= value <= high):
            raise _refused(name, f"is {_exactly(value)}; it must be from {_exactly(low)} to {_exactly(high)}")


def _exactly(value: float) -> str:
    """Return a number in the fewest digits that no other has; a whole one without a point."""
    return str(int(value)) if math.isfinite(value) and abs(value) < 2**64 and value == int(value) else repr(value)


def _free_tokens(options: GenerationOptions) -> int:
    """Return how many of the new tokens the search chooses at most: all but a forced first and a forced last."""
    first_forced = options.forced_bos_token_id is not None and not options.prefix_token_ids
    return options.max_new_tokens - first_forced - (options.forced_eos_token_id is not None)


def _check_tokens(options: GenerationOptions, spec: GenerationSpec) -> None:
    lists: tuple[tuple[str, Iterable[int]], ...] = (
        ("bad_words", [token for word in options.bad_words_ids for token in word]),
        ("suppress_tokens", options.suppress_tokens),
        ("begin_suppress_tokens", options.begin_suppress_tokens),
        ("forced_bos_token_id", [options.forced_bos_token_id or 0]),
        ("forced_eos_token_id", [options.forced_eos_token_id or 0]),
        ("target_prefix", options.prefix_token_ids),
    )
    for name, tokens in lists:
        listed = list(tokens)
        if len(listed) > MAX_LISTED_TOKENS:
            raise _refused(name, f"has {len(listed)} tokens; at most {MAX_LISTED_TOKENS} are taken")
        for token in listed:
            if not 0 <= token < spec.vocabulary_size:
                name = "bad_words_ids" if name == "bad_words" else name  # the others come from the vocabulary
                raise _refused(name, f"names token {token}; the model's go from 0 to {spec.vocabulary_size - 1}")
    if any(not word for word in options.bad_words_ids):
        raise _refused("bad_words", "holds a word without tokens")


def _check_combination(options: GenerationOptions, given: Mapping[str, Any]) -> None:
    """Refuse what can't be honoured, and what would have no effect."""
    beams, alternatives = options.num_beams > 1, options.alternatives_position is not None
    if options.do_sample and beams:
        raise _refused("do_sample", f"can't be set with num_beams {options.num_beams}; set num_beams to 1")
    if alternatives and (options.do_sample or beams):
        other = "do_sample" if options.do_sample else f"num_beams {options.num_beams}"
        raise _refused("alternatives_position", f"can't be set with {other}: alternatives are completed greedily")
    if beams and options.num_return_sequences > options.num_beams:
        raise _refused(
            "num_return_sequences", f"is {options.num_return_sequences}; num_beams {options.num_beams} gives no more"
        )
    if options.num_return_sequences > 1 and not (beams or options.do_sample or alternatives):
        raise _refused(
            "num_return_sequences",
            f"is {options.num_return_sequences}; that needs num_beams, do_sample or alternatives_position",
        )
    if alternatives and options.num_return_sequences == 1:
        raise _refused("alternatives_position", "needs num_return_sequences of 2 or more")
    if alternatives and _free_tokens(options) < 1:
        limit = options.max_new_tokens
        raise _refused("alternatives_position", f"can't be set with max_new_tokens {limit}: all of them are forced")
    for name in ("temperature", "top_k", "top_p", "min_p", "seed"):
        if name in given and not options.do_sample:
            raise _refused(name, "has no effect without do_sample")
    for name in ("length_penalty", "early_stopping"):
        if name in given and not beams:
            raise _refused(name, "has no effect with num_beams 1")
    if options.top_logprobs and not options.return_scores:
        raise _refused("return_scores", f"can't be false with top_logprobs {options.top_logprobs}, which lists some")
    if "forced_bos_token_id" in given and options.prefix_token_ids:
        raise _refused("forced_bos_token_id", "can't be set with target_prefix: both say how the text begins")


def _check_forced(spec: GenerationSpec, given: Mapping[str, Any]) -> None:
    """Refuse to ban a token that the same request forces."""
    # As in Transformers, a word that is the end of the sentence and nothing else is not banned.
    words = {word[0] for word in given.get("bad_words_ids", ()) if len(word) == 1} - {*spec.eos_token_ids}
    for forcing, end in (("forced_bos_token_id", "begin"), ("forced_eos_token_id", "end")):
        forced = given.get(forcing)
        for name, banned in (("suppress_tokens", given.get("suppress_tokens", ())), ("bad_words", words)):
            if forced in banned:
                raise _refused(name, f"bans token {forced}, with which the same request lets the text {end}")


def _refused(name: str, problem: str) -> InvalidInputError:
    field = f"generation.{name}"
    return InvalidInputError(f"{field} {problem}", field=field)

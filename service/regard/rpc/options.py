"""From the message `GenerationOptions` to what the engine searches with."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from regard.engine.search.options import MAX_LISTED_TOKENS, GenerationOptions, options_of
from regard.errors import InvalidInputError, quoted
from regard.manifest import GenerationSpec
from regard.text.characters import check_characters
from regard.text.codec import CHARACTERS_PER_TOKEN, MASKS, TextCodec
from regard.text.stops import StopStrings
from regard.v1 import generation_pb2

MAX_STOP_STRINGS = 16
MAX_STOP_CHARACTERS = 100
MAX_CHARACTERS = CHARACTERS_PER_TOKEN * MAX_LISTED_TOKENS
"""The most of a prefix, and of all bad words together."""

_BY_THE_SAME_NAME = {
    "max_new_tokens",
    "min_new_tokens",
    "num_beams",
    "length_penalty",
    "do_sample",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "seed",
    "repetition_penalty",
    "no_repeat_ngram_size",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "alternatives_position",
    "num_return_sequences",
    "top_logprobs",
    "return_scores",
}
"""The fields that mean the same to the engine."""
_LONGEST: Sequence[tuple[str, str, int, Callable[[Any], int]]] = (
    ("stop_strings", "strings", MAX_STOP_STRINGS, len),
    ("bad_words", "words", MAX_LISTED_TOKENS, len),
    ("bad_words", "characters", MAX_CHARACTERS, lambda words: sum(map(len, words))),
    ("bad_words_ids", "words", MAX_LISTED_TOKENS, len),
    ("bad_words_ids", "tokens", MAX_LISTED_TOKENS, lambda words: sum(len(word.token_ids) for word in words)),
    ("suppress_tokens", "tokens", MAX_LISTED_TOKENS, len),
    ("target_prefix", "characters", MAX_CHARACTERS, len),
)
"""The fields that could hold more than can be meant, and how much is counted of what."""
_EARLY_STOPPING: dict[int, bool | str] = {
    generation_pb2.EARLY_STOPPING_FALSE: False,
    generation_pb2.EARLY_STOPPING_TRUE: True,
    generation_pb2.EARLY_STOPPING_NEVER: "never",
}


_NO_LANGUAGE = "no language"
_OF_NO_LANGUAGE = re.compile(
    r"[<\[]\|?(s|bos|eos|cls|sep|pad|unk|mask|startoftext|endoftext|(extra_id_|unused)\d+)\|?[>\]]", re.IGNORECASE
)
"""How tokenizers spell what begins, ends or divides texts, and what they keep in reserve."""


@dataclass(frozen=True, slots=True)
class Search:
    """How a request searches, its texts tokenized once: of the prompt before an output the length alone matters."""

    spec: GenerationSpec
    given: Mapping[str, Any]
    """What it says, by the names of the engine's options."""
    stops: StopStrings | None
    """The strings that end a text, if any do."""
    streaming: bool
    fixed_tokens: int
    """How many tokens of the prefix the request did not give."""

    def behind(self, prompt_tokens: int = 1) -> GenerationOptions:
        """Return the options behind so many tokens: the start token, or a completion's prompt.

        Raises `InvalidInputError`, naming the field, for what can't be honoured.
        """
        options = options_of(self.spec, self.given, prompt_tokens, self.fixed_tokens)
        if self.streaming and options.num_return_sequences > 1:
            raise _refused("num_return_sequences", f"is {options.num_return_sequences}; a stream gives one sequence")
        if options.do_sample and "seed" not in self.given:
            return replace(options, seed=secrets.randbits(64))  # drawn from where nobody else does
        return options


def tells_scores(message: generation_pb2.GenerationOptions) -> bool:
    """Tell whether results have log-probabilities and scores, as they do unless the request does without."""
    return message.return_scores or not message.HasField("return_scores")


def has_texts(message: generation_pb2.GenerationOptions) -> bool:
    """Tell whether `search_of` has texts to tokenize, which takes more than a moment."""
    return bool(message.bad_words or message.target_prefix)


def search_of(
    message: generation_pb2.GenerationOptions,
    spec: GenerationSpec,
    codec: TextCodec,
    *,
    streaming: bool,
    fixed: Mapping[str, Any],
) -> Search:
    """Return how to search, with what is `fixed` of it: a request's prefix stands behind the fixed one.

    Raises `InvalidInputError`, naming the field, for what can't be honoured, and for what is too long before any of
    it is tokenized.
    """
    fields = {field.name: value for field, value in message.ListFields()}
    _check_lengths(fields)
    stops = _stops(message)
    if message.token_logprobs and not tells_scores(message):
        raise _refused("return_scores", "can't be false with token_logprobs, which lists some")
    given: dict[str, Any] = {name: value for name, value in fields.items() if name in _BY_THE_SAME_NAME} | dict(fixed)
    if message.early_stopping:
        if message.early_stopping not in _EARLY_STOPPING:
            raise _refused("early_stopping", f"has no value {message.early_stopping}")
        given["early_stopping"] = _EARLY_STOPPING[message.early_stopping]
    if message.target_language:
        given["forced_bos_token_id"] = _language(message, spec, codec)
    if message.target_prefix:
        pieces = _prefix(message.target_prefix, codec)
        _check_free_of_stops(message.stop_strings, codec.decode(pieces))  # as the model spells it
        given["prefix_token_ids"] = (*fixed.get("prefix_token_ids", ()), *pieces)
    given["bad_words_ids"] = (
        *(tuple(codec.pieces(word)) for word in message.bad_words),
        *(tuple(word.token_ids) for word in message.bad_words_ids),
    )
    given["suppress_tokens"] = tuple(message.suppress_tokens)
    if stops is not None:
        given["ends_at_stop"] = codec.ends_at_stop(stops)
    return Search(spec, given, stops, streaming, len(fixed.get("prefix_token_ids", ())))


def _check_lengths(fields: Mapping[str, Any]) -> None:
    """Raise `InvalidInputError` for a list or a text of more than is taken."""
    for name, unit, most, count in _LONGEST:
        if name in fields and (found := count(fields[name])) > most:
            raise _refused(name, f"has {found} {unit}; at most {most} are taken")


def _stops(message: generation_pb2.GenerationOptions) -> StopStrings | None:
    """Return the strings that end a text, if any do. Raises `InvalidInputError` for those that can't."""
    for string in message.stop_strings:
        if not 1 <= len(string) <= MAX_STOP_CHARACTERS:
            raise _refused(
                "stop_strings", f"holds a string of {len(string)} characters; it takes 1 to {MAX_STOP_CHARACTERS}"
            )
    _check_free_of_stops(message.stop_strings, message.target_prefix)
    return StopStrings(tuple(message.stop_strings)) if message.stop_strings else None


def _check_free_of_stops(strings: Iterable[str], prefix: str) -> None:
    """Raise `InvalidInputError` for a prefix that a stop string would cut off."""
    for string in strings:
        if string in prefix:
            raise _refused("target_prefix", f"holds the stop string {string!r}, so nothing could follow it")


def _prefix(text: str, codec: TextCodec) -> list[int]:
    """Return the tokens of a prefix. Raises `InvalidInputError` for one that has none, and as `check_characters`."""
    check_characters(text, "generation.target_prefix")
    pieces = codec.pieces(text)
    if not pieces:
        raise _refused("target_prefix", "gives no token; it needs at least 1 character that the model reads")
    return pieces


def _language(message: generation_pb2.GenerationOptions, spec: GenerationSpec, codec: TextCodec) -> int:
    if message.HasField("forced_bos_token_id"):
        raise _refused("target_language", "can't be set with forced_bos_token_id: both name the first token")
    token_id = codec.special_token(message.target_language)
    if token_id is None:
        raise _refused(
            "target_language",
            f"is {quoted(message.target_language)}, which is no special token of the model; "
            'spell it as the tokenizer does, such as "fr_XX", "__fr__" or "fra_Latn"',
        )
    meanings: dict[int | None, str] = dict.fromkeys(map(codec.special_token, MASKS), "a word that is left out")
    if token_id != spec.forced_bos_token_id:
        meanings[spec.start_token_id] = "the beginning of a text"
    meanings |= {spec.pad_token_id: "padding", codec.unknown_id: "what the vocabulary doesn't know"}
    meanings |= dict.fromkeys(spec.eos_token_ids, "the end of a sentence")
    meaning = meanings.get(token_id, _NO_LANGUAGE if _OF_NO_LANGUAGE.fullmatch(message.target_language) else None)
    if meaning is not None:
        raise _refused("target_language", f"is {quoted(message.target_language)}, which stands for {meaning}")
    return token_id


def _refused(name: str, problem: str) -> InvalidInputError:
    field = f"generation.{name}"
    return InvalidInputError(f"{field} {problem}", field=field)

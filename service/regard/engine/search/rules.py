"""What holds at every position of a request: the tokens that are forced, and when a sequence ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from regard.engine.request import FinishReason
from regard.engine.search.options import EndsAtStop, GenerationOptions
from regard.engine.search.processors import (
    Ban,
    MinLength,
    NoBadWords,
    NoRepeatNGram,
    Processors,
    RepetitionPenalty,
    SuppressTokens,
    SuppressTokensAtBegin,
)
from regard.engine.search.shortlist import RowScores
from regard.engine.search.timestamps import Timestamps
from regard.errors import InvalidInputError
from regard.manifest import GenerationSpec


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of one request. Positions count from 0 behind the prompt, and include the prefix."""

    prompt: tuple[int, ...]
    """What the decoder reads before all that is generated: its start token, or a completion's prompt."""
    eos_token_ids: tuple[int, ...]
    prefix: tuple[int, ...]
    prefix_choices: tuple[int, ...]
    forced_bos_token_id: int | None
    forced_eos_token_id: int | None
    limit: int
    """The number of tokens, the prefix included, after which a sequence ends."""
    ends_at_stop: EndsAtStop | None

    @classmethod
    def of(cls, options: GenerationOptions, spec: GenerationSpec, prompt: Sequence[int]) -> Rules:
        """Return the rules of a request to a model."""
        return cls(
            prompt=tuple(prompt),
            eos_token_ids=spec.eos_token_ids,
            prefix=options.prefix_token_ids,
            prefix_choices=options.prefix_choices,
            forced_bos_token_id=options.forced_bos_token_id,
            forced_eos_token_id=options.forced_eos_token_id,
            limit=len(options.prefix_token_ids) + options.max_new_tokens,
            ends_at_stop=options.ends_at_stop,
        )

    @property
    def first_free(self) -> int:
        """The first position whose token is neither the prefix' nor forced."""
        return len(self.prefix) or int(self.forced_bos_token_id is not None)

    def sequence(self, token_ids: Sequence[int]) -> list[int]:
        """Return what the decoder has read once it has given `token_ids`."""
        return [*self.prompt, *token_ids]

    def forced(self, position: int, scores: RowScores | None = None) -> int | None:
        """Return the token that must stand at a position, if one must.

        The first token of a prefix that leaves a choice is found by the `scores` of its position. Where the first
        is the last, the one that is forced at the end stands there, as in Transformers.
        """
        if position == 0 and self.prefix_choices and scores is not None:
            return self.prefix_choices[int(scores.all_logits[list(self.prefix_choices)].argmax())]
        if position < len(self.prefix):
            return self.prefix[position]
        if position == self.limit - 1 and self.forced_eos_token_id is not None:
            return self.forced_eos_token_id
        if position == 0 and self.forced_bos_token_id is not None:
            return self.forced_bos_token_id
        return None

    def may_end(self, position: int, token_id: int) -> bool:
        """Whether a sequence may end with a token at a position, which `finish_reason` then says of the whole."""
        return position >= self.limit - 1 or token_id in self.eos_token_ids or self.ends_at_stop is not None

    def finish_reason(self, token_ids: Sequence[int]) -> FinishReason | None:
        """Return why a sequence that has just got its last token ends, or None if it goes on."""
        if len(token_ids) <= len(self.prefix):
            return None
        if token_ids[-1] in self.eos_token_ids:
            return FinishReason.END_OF_SENTENCE
        if self.ends_at_stop is not None and self.ends_at_stop(token_ids):
            return FinishReason.STOP_STRING
        if len(token_ids) >= self.limit:
            return FinishReason.LENGTH
        return None


def processors_of(options: GenerationOptions, spec: GenerationSpec, prompt_tokens: int) -> Processors:
    """Return what a request does to scores, behind a prompt of so many tokens."""
    begin = prompt_tokens + len(options.prefix_token_ids)
    bans: list[Ban] = []
    if options.no_repeat_ngram_size:
        bans.append(NoRepeatNGram(options.no_repeat_ngram_size))
    # As in Transformers, a word that is the end of the sentence and nothing else is not banned.
    words = tuple(word for word in options.bad_words_ids if word not in {(eos,) for eos in spec.eos_token_ids})
    if words:
        bans.append(NoBadWords(words))
    if options.min_new_tokens:
        bans.append(MinLength(begin + options.min_new_tokens, spec.eos_token_ids))
    if spec.suppressed_token_ids or options.suppress_tokens:
        bans.append(SuppressTokens((*spec.suppressed_token_ids, *options.suppress_tokens)))
    if options.begin_suppress_tokens:
        shifted = begin == 1 and options.forced_bos_token_id is not None
        bans.append(SuppressTokensAtBegin(options.begin_suppress_tokens, begin + shifted))
    penalty = RepetitionPenalty(options.repetition_penalty) if options.repetition_penalty != 1 else None
    timestamps = None
    if options.first_timestamp_token_id is not None:
        end, latest = min(spec.eos_token_ids), options.max_initial_timestamp_index
        timestamps = Timestamps(options.first_timestamp_token_id, end, begin, latest)
    return Processors(tuple(bans), penalty, timestamps)


def no_token_left() -> InvalidInputError:
    """Return the error of a request whose options ban every token."""
    return InvalidInputError("the options of generation ban every token at some position", field="generation")

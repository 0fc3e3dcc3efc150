"""What is written token by token: translations, captions, completions and transcriptions."""

from __future__ import annotations

import math
from dataclasses import dataclass

from regard.answers.alignment import Alignment, GlossaryMatch, Quality
from regard.answers.attention import Attention, AttentionRow, Segment
from regard.answers.provenance import ModelVersion, Timing
from regard.answers.shown import Shown


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token that could have come, as the vocabulary spells it, and the natural logarithm of its probability."""

    token_id: int
    token: str
    log_probability: float


@dataclass(frozen=True, slots=True)
class GeneratedToken:
    """A token of an output, and the likeliest tokens at its position, if they were asked for.

    `log_probability` is 0 if the token was forced.
    """

    token_id: int
    token: str
    log_probability: float
    top_logprobs: tuple[TokenLogprob, ...]


@dataclass(frozen=True, slots=True)
class GeneratedSequence:
    """One of several sequences of an output; its fields are those of `Translation`."""

    text: str
    finish_reason: str
    target_tokens: int
    log_probability: float
    score: float
    tokens: tuple[GeneratedToken, ...]
    attention: Attention | None
    alignment: Alignment | None = None
    quality: Quality | None = None
    glossary: tuple[GlossaryMatch, ...] = ()


@dataclass(frozen=True, slots=True)
class Translation(Shown):
    """The translation of one text.

    `log_probability` is the natural logarithm of the probability of all generated tokens, `score`
    what sequences are ranked by, and both are NaN if `return_scores` was False; `attention`, `alignment`,
    `quality` and `tokens` are present if they were asked for; `glossary` has a match for each
    occurrence of a source term that was given; `further_sequences` come after this one, the best.
    """

    text: str
    finish_reason: str
    source_tokens: int
    target_tokens: int
    log_probability: float
    truncated: bool
    attention: Attention | None
    timing: Timing
    model: ModelVersion
    score: float = 0.0
    tokens: tuple[GeneratedToken, ...] = ()
    further_sequences: tuple[GeneratedSequence, ...] = ()
    alignment: Alignment | None = None
    quality: Quality | None = None
    glossary: tuple[GlossaryMatch, ...] = ()


@dataclass(frozen=True, slots=True)
class TranslationScore:
    """How likely a model finds a translation that it was given.

    Each of the `tokens`, the end of the sentence included, has the natural logarithm of its probability behind the
    tokens before it; `log_probability` is their sum.
    """

    tokens: tuple[GeneratedToken, ...]
    log_probability: float
    source_tokens: int
    truncated: bool
    timing: Timing
    model: ModelVersion

    @property
    def perplexity(self) -> float:
        """The inverse of the geometric mean of the tokens' probabilities: 1 if the model was sure of them."""
        return math.exp(-self.log_probability / len(self.tokens))


@dataclass(frozen=True, slots=True)
class Caption(Shown):
    """The caption of one image; its fields are those of `Translation`."""

    text: str
    finish_reason: str
    target_tokens: int
    log_probability: float
    attention: Attention | None
    timing: Timing
    model: ModelVersion
    score: float = 0.0
    tokens: tuple[GeneratedToken, ...] = ()
    further_sequences: tuple[GeneratedSequence, ...] = ()


@dataclass(frozen=True, slots=True)
class Completion(Shown):
    """What follows one prompt; its fields are those of `Translation`."""

    text: str
    finish_reason: str
    prompt_tokens: int
    target_tokens: int
    log_probability: float
    attention: Attention | None
    timing: Timing
    model: ModelVersion
    score: float = 0.0
    tokens: tuple[GeneratedToken, ...] = ()
    further_sequences: tuple[GeneratedSequence, ...] = ()


@dataclass(frozen=True, slots=True)
class SpokenSegment:
    """A part of a transcription, and when it was said, in seconds of the sound."""

    start_s: float
    end_s: float
    text: str


@dataclass(frozen=True, slots=True)
class TranscriptionWindow:
    """What the model made of a sound from `start_s` to `end_s`; its other fields are those of `Translation`."""

    start_s: float
    end_s: float
    text: str
    finish_reason: str
    target_tokens: int
    log_probability: float
    attention: Attention | None
    timing: Timing
    score: float = 0.0
    tokens: tuple[GeneratedToken, ...] = ()
    further_sequences: tuple[GeneratedSequence, ...] = ()


@dataclass(frozen=True, slots=True)
class Transcription:
    """What was said in a sound, or what it means in English.

    `text` is as the model writes it, and usually begins with a space. `language` is the code of the
    one that was asked for or found; empty for a model of one language. `segments` are the parts of
    the text, between the times that the model wrote if they were asked for, and otherwise one for
    each window; `windows` are the parts of the sound that the model heard one by one.
    """

    text: str
    language: str
    duration_s: float
    segments: tuple[SpokenSegment, ...]
    windows: tuple[TranscriptionWindow, ...]
    model: ModelVersion


@dataclass(frozen=True, slots=True)
class TokenDelta:
    """One more token of an output, and what it adds to the text.

    `log_probability` is 0 if the token was forced, and NaN if `return_scores` was False. `attention` has the
    rows that it settles, if attention was asked for: its own, or of alignment heads that tell later the one
    before. `safe_to_emit` is None unless `align_att_frames` was given; `source`, the elements that attention
    over the source runs over, comes with the first token: of a completion those of its prompt, behind which the
    output follows.
    """

    token_id: int
    text: str
    log_probability: float
    attention: tuple[AttentionRow, ...] = ()
    safe_to_emit: bool | None = None
    source: tuple[Segment, ...] = ()

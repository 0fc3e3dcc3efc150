"""What a server answers, as immutable values; each mirrors the message of the same name."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import singledispatch

import numpy as np
import numpy.typing as npt


@singledispatch
def html_of(answer: object) -> str | None:
    """Return how a notebook shows an answer, as HTML; None where nobody has told how to draw its kind."""
    return None


class Shown:
    """An answer that a notebook draws, where IPython looks for how; `regard.client` tells how."""

    __slots__ = ()

    def _repr_html_(self) -> str | None:
        return html_of(self)


@dataclass(frozen=True, slots=True)
class Segment:
    """A token or a word, and where it stands in its text, in code points; `end` is exclusive.

    A special token, such as the end of the sentence, stands nowhere: `start` equals `end`. `part` is 1
    in the second text of a pair, such as the context of a question.
    """

    text: str
    start: int
    end: int
    special: bool
    token_id: int | None
    part: int = 0


@dataclass(frozen=True, slots=True)
class PatchGrid:
    """Where the patches of an image lie: the elements of an axis that are not special, row by row.

    The grid covers the part of the image that starts at `left`, `top` and is `width` by `height`,
    all in pixels of the image with its EXIF orientation applied; that is all of it, unless the
    model looks at a crop.
    """

    rows: int
    columns: int
    image_width: int
    image_height: int
    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class SoundFrames:
    """When the elements of an axis over a window of sound are: element i, i times `seconds_per_frame` after `start_s`.

    The sound ends at `end_s`; the elements from there on are silence, and special.
    """

    start_s: float
    end_s: float
    seconds_per_frame: float


@dataclass(frozen=True, slots=True, eq=False)
class AttentionMap:
    """The weights of one layer: float32 [heads, queries, keys], as the model computed them.

    `heads` lists the heads in the map or, after a reduction, those that went in (the first
    dimension of `weights` is then 1). `query_axis` and `key_axis` are `source`, `target`,
    `decoder_input` or `patches`; `queries` and `keys` label them, and an axis over an image has a grid
    as well, one over sound frames.

    Where only the largest weights of every query were asked for, `weights` is [heads, queries, top_k],
    from the largest on, and `key_indices` of the same shape has their places in `keys`; `dense()` puts
    them there. `max_error` is how far a weight may be from what was computed, by its `encoding`.
    """

    kind: str
    stack: str
    layer: int
    heads: tuple[int, ...]
    reduction: str
    query_axis: str
    key_axis: str
    queries: tuple[Segment, ...]
    keys: tuple[Segment, ...]
    weights: npt.NDArray[np.float32]
    query_grid: PatchGrid | None = None
    key_grid: PatchGrid | None = None
    query_frames: SoundFrames | None = None
    key_frames: SoundFrames | None = None
    key_indices: npt.NDArray[np.uint32] | None = None
    encoding: str = "float32"
    max_error: float = 0.0

    def dense(self) -> npt.NDArray[np.float32]:
        """Return the weights [heads, queries, keys]: `weights` as they are, or 0 where none came for a key."""
        if self.key_indices is None:
            return self.weights
        dense = np.zeros((*self.weights.shape[:2], len(self.keys)), np.float32)
        np.put_along_axis(dense, self.key_indices.astype(np.intp), self.weights, axis=2)
        return dense


@dataclass(frozen=True, slots=True, eq=False)
class AttentionRow:
    """What the token `query` of an output, counted from 0, attended to: a row, float32 [heads, keys], of a map.

    The other fields are those of `AttentionMap`; the keys are the first of their axis, as far as the token could see.
    """

    query: int
    kind: str
    layer: int
    heads: tuple[int, ...]
    reduction: str
    key_axis: str
    weights: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Attention:
    """Every map that was asked for, and which weights, in which precision, they come from."""

    granularity: str
    maps: tuple[AttentionMap, ...]
    package_sha256: str
    precision: str


@dataclass(frozen=True, slots=True)
class Link:
    """A source word and a target word that go together, and the link's weight, from 0 to 1."""

    source: Segment
    target: Segment
    weight: float

    def __str__(self) -> str:
        return f"{self.source.text} → {self.target.text} ({self.weight:.2f})"


@dataclass(frozen=True, slots=True)
class Alignment:
    """Which words of the source translate to which of the target; a word may have no link, one, or several.

    `source_coverage` is how much attention all target words paid to each source word, 1 at most;
    `target_confidence` each target word's probability, given all before it.
    """

    source_words: tuple[Segment, ...]
    target_words: tuple[Segment, ...]
    links: tuple[Link, ...]
    source_coverage: tuple[float, ...] = ()
    target_confidence: tuple[float, ...] = ()

    def __str__(self) -> str:
        return ", ".join(map(str, self.links))

    def targets_of(self, word: Segment) -> tuple[Segment, ...]:
        """Return the target words that a source word is linked to, in order."""
        return tuple(link.target for link in self.links if link.source == word)

    @property
    def pharaoh(self) -> str:
        """The links as `0-0 1-2`: the places of source and target word, as fast_align and Marian write them."""
        sources = {word.start: place for place, word in enumerate(self.source_words)}
        targets = {word.start: place for place, word in enumerate(self.target_words)}
        return " ".join(f"{sources[link.source.start]}-{targets[link.target.start]}" for link in self.links)


@dataclass(frozen=True, slots=True)
class Quality:
    """How good a translation seems, from 0 to 1, and why.

    `warnings` holds `under_translation`, `hallucination` and `repetition`, or none of them;
    `uncovered_words` are source words that the translation seems to leave out.
    """

    score: float
    warnings: tuple[str, ...]
    uncovered_words: tuple[Segment, ...]
    coverage: float
    confidence: float
    repetition: float
    attention_entropy: float
    attention_sink_share: float
    attention_repetition: float

    def __str__(self) -> str:
        warnings = ", ".join(warning.replace("_", "-") for warning in self.warnings) or "no warnings"
        words = ", ".join(word.text for word in self.uncovered_words)
        return f"{self.score:.2f}, {warnings}" + (f"; perhaps left out: {words}" if words else "")


@dataclass(frozen=True, slots=True)
class GlossarySpan:
    """A part of a text, in code points; `end` is exclusive."""

    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class GlossaryMatch:
    """One occurrence of a source term, and what the translation has in its place.

    `verdict` is `kept` if the `expected` term is linked to it, `unlinked` if that merely stands in the
    translation, and `missing` if it doesn't; `target` is where it stands. `entry` counts those that were given.
    """

    entry: int
    expected: str
    verdict: str
    source: GlossarySpan
    target: GlossarySpan | None
    linked_words: tuple[GlossarySpan, ...]

    def __str__(self) -> str:
        found = self.target.text if self.target else " ".join(word.text for word in self.linked_words) or "nothing"
        asked = "" if self.verdict == "kept" else f" (expected: {self.expected})"
        return f"{self.source.text} → {found}: {self.verdict}{asked}"


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the time of one input went, in seconds."""

    queue_s: float
    encode_s: float
    decode_s: float


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """The model that answered."""

    name: str
    version: str


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
    what sequences are ranked by; `attention`, `alignment`, `quality` and `tokens` are present if they were asked
    for; `glossary` has a match for each occurrence of a source term that was given;
    `further_sequences` come after this one, the best; `model` is absent from a streamed
    translation.
    """

    text: str
    finish_reason: str
    source_tokens: int
    target_tokens: int
    log_probability: float
    truncated: bool
    attention: Attention | None
    timing: Timing
    model: ModelVersion | None
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
    model: ModelVersion | None
    score: float = 0.0
    tokens: tuple[GeneratedToken, ...] = ()
    further_sequences: tuple[GeneratedSequence, ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """What follows one prompt; its fields are those of `Translation`."""

    text: str
    finish_reason: str
    prompt_tokens: int
    target_tokens: int
    log_probability: float
    attention: Attention | None
    timing: Timing
    model: ModelVersion | None
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
    each window; `windows` are the parts of the sound that the model heard one by one. `model` is
    absent from a streamed transcription.
    """

    text: str
    language: str
    duration_s: float
    segments: tuple[SpokenSegment, ...]
    windows: tuple[TranscriptionWindow, ...]
    model: ModelVersion | None


@dataclass(frozen=True, slots=True)
class TokenDelta:
    """One more token of an output, and what it adds to the text.

    `attention` has the rows that it settles, if attention was asked for: its own, or of alignment heads
    that tell later the one before. `safe_to_emit` is None unless `align_att_frames` was given; `source`, the
    elements that attention over the source runs over, comes with the first token.
    """

    token_id: int
    text: str
    log_probability: float
    attention: tuple[AttentionRow, ...] = ()
    safe_to_emit: bool | None = None
    source: tuple[Segment, ...] = ()


@dataclass(frozen=True, slots=True)
class ClassProbability:
    """A class, its index in the model's output, and its probability, from 0 to 1."""

    label: str
    index: int
    probability: float


@dataclass(frozen=True, slots=True)
class Classification(Shown):
    """The likeliest classes of one text, in descending order of probability."""

    classes: tuple[ClassProbability, ...]
    out_of_scope: bool
    source_tokens: int
    truncated: bool
    attention: Attention | None
    timing: Timing
    model: ModelVersion


@dataclass(frozen=True, slots=True)
class ClassifiedToken:
    """A token of a text, its place on an axis of tokens, and its likeliest classes; `end` is exclusive."""

    token: str
    token_id: int
    index: int
    start: int
    end: int
    classes: tuple[ClassProbability, ...]


@dataclass(frozen=True, slots=True)
class Entity:
    """A part of a text whose tokens are of one class; `end` is exclusive."""

    label: str
    score: float
    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class TokenClassification:
    """The classes of every token of one text but the special ones, and the entities that they make up."""

    tokens: tuple[ClassifiedToken, ...]
    entities: tuple[Entity, ...]
    source_tokens: int
    truncated: bool
    attention: Attention | None
    timing: Timing
    model: ModelVersion


@dataclass(frozen=True, slots=True)
class AnswerSpan:
    """A part of a context that may be the answer; empty if it is that there is none. `end` is exclusive."""

    text: str
    score: float
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class AnsweredQuestion:
    """The best answers to one question, in descending order of score, from a context read in `windows`.

    `null_score` is that of there being no answer. Attention is that of the window of the best answer.
    """

    answers: tuple[AnswerSpan, ...]
    null_score: float
    windows: int
    source_tokens: int
    attention: Attention | None
    timing: Timing
    model: ModelVersion

    @property
    def best(self) -> AnswerSpan | None:
        """The best answer; None if no part of the context can be one."""
        return self.answers[0] if self.answers else None


@dataclass(frozen=True, slots=True)
class TextScore:
    """How alike an image is to the text `text_index` of its comparison."""

    text_index: int
    logit: float
    probability: float


@dataclass(frozen=True, slots=True)
class ComparedImage:
    """One image beside the texts; `embedding` is empty unless it was asked for."""

    scores: tuple[TextScore, ...]
    embedding: tuple[float, ...]
    attention: Attention | None
    timing: Timing

    @property
    def best(self) -> TextScore | None:
        """The text that is most alike; None if there is none to compare with."""
        return max(self.scores, key=lambda score: score.logit, default=None)


@dataclass(frozen=True, slots=True)
class ComparedText:
    """One text; `embedding` is empty unless it was asked for."""

    source_tokens: int
    truncated: bool
    embedding: tuple[float, ...]
    attention: Attention | None
    timing: Timing


@dataclass(frozen=True, slots=True)
class Faithfulness:
    """How well an order of an input's parts agrees with what the model does without them, in units of the score.

    Low `deletion_auc` and `sufficiency` are faithful, and high `insertion_auc` and `comprehensiveness`.
    """

    deletion_auc: float
    insertion_auc: float
    comprehensiveness: float
    sufficiency: float


@dataclass(frozen=True, slots=True, eq=False)
class Attribution:
    """What one method says that each part of an input is worth, float64 [parts], and how faithful that is.

    `overlay` is a PNG file of the image under these weights, if that was asked for; `target_weights` are what a part
    is worth to each word of an output, [targets, parts], whose sums are the weights.
    """

    method: str
    weights: npt.NDArray[np.float64]
    faithfulness: Faithfulness | None
    overlay: bytes | None = None
    target_weights: npt.NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True)
class Attributions:
    """What several methods say of one input: of its words or tokens, or its patches, which a `grid` places.

    `random` is the faithfulness of orders drawn at random, which a method must surpass to tell anything. `cover` is
    what covers a word under occlusion; `runs` is how often the model was run.
    """

    parts: tuple[Segment, ...]
    grid: PatchGrid | None
    methods: tuple[Attribution, ...]
    random: Faithfulness | None
    cover: str
    runs: int
    package_sha256: str
    precision: str

    def __getitem__(self, method: str) -> Attribution:
        """Return what a method says; raises `KeyError` for one that was not asked for."""
        for one in self.methods:
            if one.method == method:
                return one
        raise KeyError(f"{method} was not asked for; there are {', '.join(one.method for one in self.methods)}")

    def ranked(self, method: str) -> list[tuple[Segment, float]]:
        """Return the parts with what a method says that they are worth, the most first."""
        weights = self[method].weights
        return [(self.parts[place], float(weights[place])) for place in np.argsort(-weights, kind="stable")]


@dataclass(frozen=True, slots=True)
class ClassAttribution:
    """Which parts of one input made a class likely; the score that they are weighed by is its probability."""

    explained: ClassProbability
    likeliest: ClassProbability
    attributions: Attributions
    model: ModelVersion


@dataclass(frozen=True, slots=True)
class OutputAttribution:
    """Which parts of one input made each word of an output, the `targets`, likely.

    The score that they are weighed by is the natural logarithm of a word's probability; faithfulness is in units
    of the geometric mean of the probabilities of all tokens.
    """

    text: str
    tokens: tuple[GeneratedToken, ...]
    log_probability: float
    targets: tuple[Segment, ...]
    attributions: Attributions
    model: ModelVersion


@dataclass(frozen=True, slots=True)
class Tap:
    """One layer whose attention weights can be asked for."""

    kind: str
    stack: str
    layer: int
    heads: int


@dataclass(frozen=True, slots=True)
class Model:
    """A model that a server holds; `ready` is False while it loads or drains."""

    name: str
    version: str
    task: str
    architecture: str
    precision: str
    package_sha256: str
    max_source_tokens: int
    max_target_tokens: int
    taps: tuple[Tap, ...]
    labels: tuple[str, ...]
    ready: bool

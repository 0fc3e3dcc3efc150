"""What a server answers, as immutable values; each mirrors the message of the same name."""

from regard.answers.alignment import Alignment, GlossaryMatch, GlossarySpan, Link, Quality
from regard.answers.attention import Attention, AttentionMap, AttentionRow, PatchGrid, Segment, SoundFrames
from regard.answers.attribution import Attribution, Attributions, ClassAttribution, Faithfulness, OutputAttribution
from regard.answers.generation import (
    Caption,
    Completion,
    GeneratedSequence,
    GeneratedToken,
    SpokenSegment,
    TokenDelta,
    TokenLogprob,
    Transcription,
    TranscriptionWindow,
    Translation,
    TranslationScore,
)
from regard.answers.models import Model, Tap
from regard.answers.provenance import ModelVersion, Timing
from regard.answers.reading import (
    AnsweredQuestion,
    AnswerSpan,
    Classification,
    ClassifiedToken,
    ClassProbability,
    ComparedImage,
    ComparedText,
    Entity,
    TextScore,
    TokenClassification,
)
from regard.answers.shown import Shown, html_of

__all__ = [
    "Alignment",
    "AnswerSpan",
    "AnsweredQuestion",
    "Attention",
    "AttentionMap",
    "AttentionRow",
    "Attribution",
    "Attributions",
    "Caption",
    "ClassAttribution",
    "ClassProbability",
    "Classification",
    "ClassifiedToken",
    "ComparedImage",
    "ComparedText",
    "Completion",
    "Entity",
    "Faithfulness",
    "GeneratedSequence",
    "GeneratedToken",
    "GlossaryMatch",
    "GlossarySpan",
    "Link",
    "Model",
    "ModelVersion",
    "OutputAttribution",
    "PatchGrid",
    "Quality",
    "Segment",
    "Shown",
    "SoundFrames",
    "SpokenSegment",
    "Tap",
    "TextScore",
    "Timing",
    "TokenClassification",
    "TokenDelta",
    "TokenLogprob",
    "Transcription",
    "TranscriptionWindow",
    "Translation",
    "TranslationScore",
    "html_of",
]

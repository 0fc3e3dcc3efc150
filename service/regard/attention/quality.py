"""How good a translation seems, from the attention and the probabilities that it was made with: no reference needed.

Each warning is a threshold on one figure: that below which, or above which, one in twenty sound
translations falls, of the demonstration translator's 1,000 development sentences and their references.
What the warnings are worth was measured on others, whose translations were corrupted on purpose:
`make quality`, whose figures stand in the translator's card.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from regard.attention.alignment import Alignment
from regard.attention.health import Health, repetition
from regard.text.segment import Segment

LEAST_COVERAGE = 0.67
LEAST_CONFIDENCE = 0.04
MOST_REPETITION = 0.06
LEAST_WORD_COVERAGE = 0.5
"""A source word without a link that got less attention than this counts as left out."""


class QualityWarning(StrEnum):
    """What may be wrong with a translation."""

    UNDER_TRANSLATION = "under_translation"
    HALLUCINATION = "hallucination"
    REPETITION = "repetition"


@dataclass(frozen=True, slots=True)
class Quality:
    """How good a translation seems, why, and the source words that it seems to leave out."""

    score: float
    """coverage * confidence ** (1 / 4) * (1 - repetition), from 0 to 1; the root lets all three weigh alike."""
    warnings: tuple[QualityWarning, ...]
    uncovered_words: tuple[Segment, ...]
    coverage: float
    """The mean over source words of half the attention that each got, 1 at most, and half whether it has a link."""
    confidence: float
    """The geometric mean of the tokens' probabilities; a forced token's is 1."""
    repetition: float
    """The output's `repetition` beyond the source's own, of tokens."""
    health: Health


def assess(
    alignment: Alignment, health: Health, source_tokens: Sequence[Hashable], log_probabilities: Sequence[float]
) -> Quality:
    """Return the quality of a translation; `source_tokens` holds no special ones."""
    linked = {link.source for link in alignment.links}
    covered = [(reached + (place in linked)) / 2 for place, reached in enumerate(alignment.coverage)]
    coverage = float(np.mean(covered)) if covered else 1.0
    confidence = math.exp(math.fsum(log_probabilities) / max(len(log_probabilities), 1))
    repeated = max(health.repeated_ngrams - repetition(source_tokens), 0.0)
    risks = {
        QualityWarning.UNDER_TRANSLATION: coverage < LEAST_COVERAGE,
        QualityWarning.HALLUCINATION: confidence < LEAST_CONFIDENCE,
        QualityWarning.REPETITION: repeated > MOST_REPETITION,
    }
    return Quality(
        score=coverage * confidence**0.25 * (1 - repeated),
        warnings=tuple(warning for warning, given in risks.items() if given),
        uncovered_words=tuple(
            word
            for place, (word, reached) in enumerate(zip(alignment.source_words, alignment.coverage, strict=True))
            if place not in linked and reached < LEAST_WORD_COVERAGE
        ),
        coverage=coverage,
        confidence=confidence,
        repetition=repeated,
        health=health,
    )

"""The score and the warnings, from figures that are given."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from regard.attention.alignment import Alignment, Link
from regard.attention.health import Health
from regard.attention.quality import Quality, QualityWarning, assess
from regard.text.segment import Segment

WORDS = tuple(Segment(word, 0, 1, False, None) for word in ("the", "cat", "sat", "down"))
SOUND = Alignment(WORDS, WORDS, tuple(Link(place, place, 1.0) for place in range(4)), (1.0,) * 4, (0.9,) * 4)
HEALTH = Health(entropy=0.3, coverage=0.8, sink_share=0.1, repeated_positions=0.0, repeated_ngrams=0.0)


def judged(alignment: Alignment = SOUND, repeated: float = 0.0, probability: float = 0.81) -> Quality:
    """Return the quality of a translation of four tokens."""
    return assess(alignment, replace(HEALTH, repeated_ngrams=repeated), [4, 5, 6, 7], [math.log(probability)] * 4)


def test_a_sound_translation_gives_no_warning() -> None:
    """Its score is the rule's: coverage, times the fourth root of confidence, times what isn't repeated."""
    quality = judged()

    assert quality.warnings == quality.uncovered_words == ()
    assert (quality.coverage, quality.confidence) == (1, pytest.approx(0.81))
    assert quality.score == pytest.approx(0.81**0.25)


def test_words_that_nothing_attends_to_are_named() -> None:
    """A word with a link or with attention isn't left out; without both it is."""
    partly = replace(SOUND, links=SOUND.links[:2], coverage=(0.2, 1.0, 0.9, 0.1))

    quality = judged(partly)

    assert quality.coverage == pytest.approx((0.2 + 1.0 + 0.9 + 0.1 + 2) / 8)
    assert [word.text for word in quality.uncovered_words] == ["down"]
    assert quality.warnings == (QualityWarning.UNDER_TRANSLATION,)


def test_what_is_improbable_and_what_is_repeated_are_warned_of() -> None:
    """Each warning has a figure of its own, and several come together."""
    assert judged(probability=0.01).warnings == (QualityWarning.HALLUCINATION,)
    assert judged(repeated=0.2).warnings == (QualityWarning.REPETITION,)
    assert judged(repeated=0.2, probability=0.01).warnings == (QualityWarning.HALLUCINATION, QualityWarning.REPETITION)


def test_what_the_source_repeats_may_be_repeated() -> None:
    """A source of the same tokens again excuses a translation that does as it does."""
    quality = assess(SOUND, replace(HEALTH, repeated_ngrams=1 / 3), [4, 5, 4, 5], [-0.1] * 4)

    assert (quality.repetition, quality.warnings) == (0, ())


def test_a_translation_of_nothing_is_judged_too() -> None:
    """An output of its end alone has no links: everything is left out."""
    quality = assess(Alignment(WORDS, (), (), (0.0,) * 4, ()), HEALTH, [4, 5, 6, 7], [-0.1])

    assert quality.score == 0
    assert quality.uncovered_words == WORDS

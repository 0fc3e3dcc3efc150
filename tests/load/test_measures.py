from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from load_tests.measures import Measures, Phase, Sample
from load_tests.picture import draw

TEXT = "{http://www.w3.org/2000/svg}text"
CIRCLE = "{http://www.w3.org/2000/svg}circle"


def measures(*samples: Sample) -> Measures:
    """Return what a test of two kinds measured in two seconds of an open loop."""
    return Measures(["translate", "classify"], [Phase("open", "3 requests a second", 1.0, 3.0)], list(samples))


def answer(kind: str, latency_ms: float) -> Sample:
    """Return a request that went well."""
    return Sample("open", kind, 1.5, latency_ms, None)


FAILED = Sample("open", "translate", 2.0, 900.0, "UNAVAILABLE: gone")


def test_quantiles_are_of_answers():
    """A failure is counted, but its time is no answer's time, and it is no answer a second."""
    given = measures(*(answer("translate", float(latency_ms)) for latency_ms in range(101)), FAILED)
    row, _ = given.rows
    assert (row.requests, row.failures, row.per_s) == (102, 1, 50.5)
    assert row.latency_ms == pytest.approx((50, 95, 99))


def test_faults_are_named_and_counted():
    """What failed is told by kind, status and number, and so is a kind that was never asked."""
    assert measures(answer("translate", 5), FAILED, FAILED).faults == [
        "open loop: 2 × translate failed: UNAVAILABLE: gone",
        "open loop: no request of the kind classify was made",
    ]


def test_a_test_without_faults_has_none():
    """Answers to every kind are all that is asked for."""
    assert measures(answer("translate", 5), answer("classify", 1)).faults == []


def test_the_picture_shows_every_answer():
    """There is a dot for each answer, and one for each median."""
    picture = ET.fromstring(
        draw(measures(answer("translate", 5), answer("translate", 8), answer("classify", 1)), "Here.")
    )
    assert len(list(picture.iter(CIRCLE))) == 3 + 2
    assert "Here." in [text.text for text in picture.iter(TEXT)]


def test_the_picture_shows_failures():
    """What failed is in the columns and in their legend, and a kind without answers says so."""
    texts = [text.text for text in ET.fromstring(draw(measures(FAILED, answer("classify", 1)), "")).iter(TEXT)]
    assert "failed" in texts
    assert "no answer" in texts


def test_a_test_that_measured_nothing_can_be_drawn():
    """Also a test in which nothing was asked has its picture."""
    texts = [text.text for text in ET.fromstring(draw(measures(), "")).iter(TEXT)]
    assert texts.count("no answer") == 2

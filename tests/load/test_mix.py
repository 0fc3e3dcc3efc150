from __future__ import annotations

from collections import Counter

import pytest

from load_tests.kinds import Inputs, Kind, Mix, kinds
from regard.v1 import caption_pb2, classification_pb2, translation_pb2

INPUTS = Inputs("translator", ["a text", "another"], "classifier", ["an utterance"], [b"an image"])


def test_a_seed_lays_the_requests_down():
    """The same seed gives the same requests in the same order, another one another order."""
    first, same, other = ([mix.draw() for _ in range(50)] for mix in (Mix(INPUTS, 0.25, seed) for seed in (1, 1, 2)))
    assert first == same
    assert first != other


def test_shares_are_as_stated():
    """Tasks come evenly, and the stated share of each asks for attention."""
    mix = Mix(INPUTS, 0.25, 1)
    drawn = Counter(mix.draw()[0] for _ in range(12_000))
    for kind in kinds(0.25):
        assert drawn[kind] == pytest.approx(1000 if kind.attention else 3000, rel=0.1)


def test_a_request_is_what_its_kind_says():
    """Each kind is asked of its own service and model, with one input, and with attention only where it says so."""
    messages = {
        "translate": translation_pb2.TranslateRequest,
        "classify": classification_pb2.ClassifyRequest,
        "caption": caption_pb2.CaptionRequest,
    }
    models = {"translate": "translator", "classify": "classifier", "caption": "demo-scenes"}
    for kind, message in Mix(INPUTS, 0.5, 1).one_of_each():
        assert isinstance(message, messages[kind.task])
        assert message.model_name == models[kind.task]
        assert message.HasField("attention") == kind.attention


@pytest.mark.parametrize(("share", "expected"), [(0.0, {False}), (0.25, {False, True}), (1.0, {True})])
def test_only_what_can_be_drawn_is_expected(share, expected):
    """A mix without attention, or with nothing else, isn't failed for the kinds that it leaves out."""
    assert {kind.attention for kind in kinds(share)} == expected
    assert {kind.task for kind in kinds(share)} == {"translate", "classify", "caption"}
    assert Kind("caption", False) not in kinds(1.0)

"""Unknown words, copied from the source."""

from __future__ import annotations

import numpy as np
import pytest

from regard.attention.axes import Passage
from regard.attention.copying import copy_unknowns
from regard.manifest import AlignmentHead, AlignmentSpec
from regard.text.segment import Segment

UNKNOWN = 1
SPEC = AlignmentSpec(
    heads=(AlignmentHead(layer=0, head=0, position="output"),), method="argmax", tension=0, pairs=1, silver_aer=0
)


def passage(*tokens: str) -> Passage:
    """Return the passage of tokens, a space before each that begins with _, and its end."""
    text, segments = "", []
    for token in tokens:
        text += " " if token.startswith("_") and text else ""
        spelled = token.removeprefix("_")
        token_id = UNKNOWN if spelled == "<unk>" else 5
        segments.append(Segment(token, len(text), len(text) + len(spelled), False, token_id))
        text += spelled
    return Passage(text, (*segments, Segment("</s>", len(text), len(text), True, 0)))


def looking(*places: int, keys: int) -> np.ndarray:
    """Return the weights of rows that look mostly at one position each; the last row is the end's."""
    weights = np.full((len(places) + 1, keys), 0.1, np.float32)
    for row, place in enumerate((*places, keys - 1)):
        weights[row, place] = 1.0
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


@pytest.mark.parametrize(
    ("target", "places", "text"),
    [
        (["_I'm", "_<unk>", "."], [1, 2, 4], "I'm Dvořák."),
        (["_<unk>"], [3], "Brno"),
        (["_l'", "<unk>", "_!"], [0, 3, 4], "l'Brno !"),
        (["_Dvo", "<unk>", "ák", "_est", "_né"], [2, 2, 2, 0, 1], "Dvořák est né"),
        (["_<unk>", "<unk>", "_de", "_<unk>"], [2, 2, 0, 3], "Dvořák de Brno"),
        (["_<unk>", "_<unk>", "."], [2, 2, 4], "Dvořák."),
        (["_<unk>", "_<unk>", "."], [2, 3, 4], "Dvořák Brno."),
        (["_Bonjour"], [0], "Bonjour"),
    ],
)
def test_an_unknown_word_is_the_one_that_it_looks_at(target: list[str], places: list[int], text: str) -> None:
    """Alone, behind an apostrophe, within a word, twice in a row, twice for one word, and not at all."""
    source = passage("_I", "_am", "_Dvořák", "_Brno", ".")
    before = passage(*target)

    after, copied = copy_unknowns(SPEC, looking(*places, keys=6), source, before, UNKNOWN)

    assert after.text == text
    assert set(copied) == {place for place, token in enumerate(target) if "<unk>" in token}
    for old, new in zip(before.segments, after.segments, strict=True):
        inside = "<unk>" in before.text[old.start : old.end]
        if inside:
            assert after.text[new.start : new.end] in ("Dvořák", "Brno")
        elif old.start < old.end and after.text[new.start : new.end] != "Dvořák":
            assert after.text[new.start : new.end] == before.text[old.start : old.end]
    assert after.segments[-1].start == len(after.text)


def test_a_position_at_which_all_look_is_not_copied() -> None:
    """The full stop is every row's favourite; balanced against the others, the unknown token's own is the name."""
    source, before = passage("_I", "_am", "_Dvořák", "."), passage("_Je", "_suis", "_<unk>", ".")
    rest = 0.5
    weights = np.array(
        [
            [0.4, 0.05, 0.05, rest, 0],
            [0.05, 0.4, 0.05, rest, 0],
            [0.02, 0.03, 0.45, rest, 0],
            [0.02, 0.03, 0.05, 0.9, 0],
            [0, 0, 0, 0, 1],
        ],
        np.float32,
    )

    after, copied = copy_unknowns(SPEC, weights, source, before, UNKNOWN)

    assert (after.text, copied) == ("Je suis Dvořák.", {2: 2})

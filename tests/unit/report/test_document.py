from __future__ import annotations

import base64
from dataclasses import replace

import numpy as np
import pytest

from regard.report import MAX_ANSWERS, ReportError
from regard.report.axes import direction_of
from regard.report.document import describe
from regard.viewer.weights import MOST_WEIGHTS

from .answers import (
    answered_question,
    attention_of,
    caption,
    classification,
    completion,
    image_classification,
    layers_of,
    token_classification,
    translation,
    words,
)


def test_a_translation_has_its_texts_axes_and_maps():
    """A translation's document holds both texts, every axis once and every layer of every kind."""
    (described,) = describe([translation()])["answers"]

    assert (described["task"], described["source"], described["output"]) == (
        "translation",
        "the old house",
        "la vieille maison",
    )
    assert set(described["axes"]) == {"source", "target", "decoder_input"}
    assert [segment["text"] for segment in described["axes"]["target"]["segments"]] == [
        "la",
        "vieille",
        "maison",
        "</s>",
    ]
    assert [(one["kind"], one["stack"], one["layer"]) for one in described["maps"]] == [
        ("self", "encoder", 0),
        ("self", "encoder", 1),
        ("self", "decoder", 0),
        ("self", "decoder", 1),
        ("cross", "decoder", 0),
        ("cross", "decoder", 1),
    ]
    assert described["maps"][-1]["shape"] == [3, 4, 4]


def test_provenance_travels():
    """The model, the precision, the package and the error of storing stand beside the weights."""
    (described,) = describe([translation()])["answers"]

    assert (described["model"], described["precision"]) == ("en-fr/1", "fp32")
    assert described["package_sha256"].startswith("c0ffee")
    assert all(0 < one["error"] < 8e-6 for one in described["maps"])


def test_a_classification_has_its_classes():
    """A classification's document holds classes in order, and whether the text is outside them."""
    (described,) = describe([classification(out_of_scope=True)])["answers"]

    assert described["task"] == "classification"
    assert [one["label"] for one in described["classes"]] == ["restaurant_reservation", "travel_alert"]
    assert described["out_of_scope"] is True


def test_entities_are_marked_in_their_text():
    """A classification of tokens holds its text, and where its entities stand."""
    (described,) = describe([token_classification()])["answers"]

    assert described["task"] == "token_classification"
    assert described["marked"] == {
        "text": "Sarah lives in London",
        "spans": [
            {"start": 0, "end": 5, "label": "PER", "score": 0.96875},
            {"start": 15, "end": 21, "label": "LOC", "score": 0.5},
        ],
    }
    (unknown,) = describe([(None, token_classification()[1])])["answers"]
    assert unknown["marked"] is None


def test_an_answer_is_marked_in_its_context():
    """An answered question holds all answers, and where the best one stands, unless that is that there is none."""
    given, answer = answered_question()
    (described,) = describe([(given, answer)])["answers"]

    assert (described["task"], described["source"]) == ("answered_question", "where is it?")
    assert described["classes"] == [{"label": "house", "probability": 0.75}, {"label": "", "probability": 0.125}]
    span = {"start": 18, "end": 23, "label": "", "score": 0.75}
    assert described["marked"] == {"text": "the cat is in the house", "spans": [span]}
    (impossible,) = describe([(given, replace(answer, answers=answer.answers[::-1]))])["answers"]
    assert impossible["marked"]["spans"] == []


def test_each_text_of_a_pair_has_its_own_places():
    """The words of a question and of its context are set apart as each of the texts has them."""
    given, answer = answered_question("is it?", "a cat")
    joined = [replace(one, text=one.text, start=one.start, end=one.end) for one in answer.attention.maps[0].keys]
    joined[2:3] = [replace(joined[2], text="it", end=5), replace(joined[2], text="?", start=5)]
    maps = layers_of("self", "encoder", ("source", tuple(joined)), ("source", tuple(joined)))
    for texts in (given, None):
        (described,) = describe([(texts, replace(answer, attention=attention_of(maps)))])["answers"]

        spaced = [(one["text"], one["spaced"]) for one in described["axes"]["source"]["segments"] if not one["special"]]
        assert spaced == [("is", True), ("it", True), ("?", False), ("a", True), ("cat", True)]


def test_a_pair_is_classified():
    """The first text names a classification of two."""
    text, answer = classification()
    behind = [replace(one, part=1) for one in words("for two", after=["[SEP]"])]
    axis = ("source", (*answer.attention.maps[0].keys, *behind))
    pair = replace(answer, attention=attention_of(layers_of("self", "encoder", axis, axis)))

    (described,) = describe([((text, "for two"), pair)])["answers"]

    assert (described["source"], described["marked"]) == (text, None)
    last = [(one["text"], one["spaced"]) for one in described["axes"]["source"]["segments"][-3:]]
    assert last == [("for", True), ("two", True), ("[SEP]", True)]


def test_a_completion_has_its_prompt_before_it():
    """A completion's document holds the prompt as its source, and an axis over both texts."""
    (described,) = describe([completion("don't", " stop!")])["answers"]

    assert (described["task"], described["source"], described["output"]) == ("completion", "don't", " stop!")
    fed = described["axes"]["decoder_input"]["segments"]
    assert [(one["text"], one["spaced"]) for one in fed] == [("don't", False)]
    (described,) = describe([completion("בית", " a b")])["answers"]
    assert described["axes"]["decoder_input"]["direction"] == "rtl"


def test_a_caption_has_its_picture_and_grid():
    """A caption's document holds the picture, and the grid as shares of its sides."""
    (described,) = describe([caption(crop=(60, 40, 120, 80))])["answers"]

    assert described["picture"]["uri"].startswith("data:image/png")
    assert (described["source"], described["output"]) == (None, "a red circle above a blue square")
    assert described["axes"]["source"]["grid"] == {
        "rows": 4,
        "columns": 6,
        "left": 0.25,
        "top": 0.25,
        "width": 0.5,
        "height": 0.5,
    }


def test_an_image_may_lie_in_a_file(tmp_path):
    """An image given by its path is the same as its bytes."""
    image, answer = caption()
    (tmp_path / "scene.png").write_bytes(image)

    assert describe([(tmp_path / "scene.png", answer)]) == describe([(image, answer)])


def test_an_image_can_be_classified():
    """A classification of an image has a picture in the place of a text."""
    (described,) = describe([image_classification()])["answers"]

    assert described["source"] is None
    assert described["picture"]["width"] == 240


def test_spaces_are_those_of_the_text():
    """A word is set apart from the one before where the text has a space, and joined where it has none."""
    source, answer = translation("don't stop!", "arrêtez")
    cut = [
        replace(one, start=start, end=end)
        for one, (start, end) in zip(words("a b c d"), [(0, 2), (2, 5), (6, 10), (10, 11)], strict=True)
    ]
    maps = layers_of("cross", "decoder", ("target", words("arrêtez")), ("source", tuple(cut)))

    (described,) = describe([(source, replace(answer, attention=attention_of(maps)))])["answers"]

    assert [one["spaced"] for one in described["axes"]["source"]["segments"]] == [False, False, True, False]


@pytest.mark.parametrize(
    ("text", "direction"),
    [
        ("", "ltr"),
        ("maison", "ltr"),
        ("بيت قديم", "rtl"),
        ("123 «בית»", "rtl"),
        ("3 maisons بيت", "ltr"),
        ("42", "ltr"),
    ],
)
def test_direction_is_that_of_the_first_letter(text, direction):
    """A text runs from right to left if its first letter does."""
    assert direction_of(text) == direction


def test_no_answers_and_too_many_are_refused():
    """A page shows from one answer to its limit, which the error names."""
    for count in (0, MAX_ANSWERS + 1):
        with pytest.raises(ReportError, match=rf"from 1 to {MAX_ANSWERS} answers, not {count}"):
            describe([translation()] * count)


def test_an_answer_without_attention_is_refused():
    """The error names the answer, and says how to ask."""
    source, answer = translation()

    with pytest.raises(ReportError, match=r"answers\[1\] has no attention: ask for it"):
        describe([translation(), (source, replace(answer, attention=None))])


def test_a_map_of_the_largest_weights_is_shown_with_all_keys():
    """What did not come is 0 on the page, and counts among its weights."""
    source, answer = translation()
    whole = answer.attention.maps[-1]
    places = np.argsort(-whole.weights, axis=2)[..., :2]
    kept = np.take_along_axis(whole.weights, places, axis=2)
    cut = replace(whole, weights=kept, key_indices=places.astype(np.uint32))

    (described,) = describe([(source, replace(answer, attention=attention_of([cut])))])["answers"]

    (one,) = described["maps"]
    shown = np.frombuffer(base64.b64decode(one["weights"]), "<u2").reshape(one["shape"]) / 65535
    expected = np.zeros_like(whole.weights)
    np.put_along_axis(expected, places, kept, axis=2)
    assert np.abs(shown - expected).max() <= one["error"]


def test_too_many_weights_are_refused():
    """The error names the limit, and what to leave out."""
    source, answer = translation()
    (one,) = layers_of("cross", "decoder", ("target", words("a")), ("source", words("b")), layers=1)
    large = replace(one, weights=np.broadcast_to(np.float32(0), (1, 1, MOST_WEIGHTS + 1)))

    with pytest.raises(ReportError, match="at most 32,000,000 weights, not 32,000,001"):
        describe([(source, replace(answer, attention=attention_of([large])))])


@pytest.mark.parametrize(
    ("given", "answer", "problem"),
    [
        (b"", translation()[1], "its input is a text"),
        ("a text", caption()[1], "its input is an image"),
        ("a text", answered_question()[1], "its input is the question and its context, not a text"),
        (("two", "texts"), token_classification()[1], "its input is a text, not two texts"),
        (b"", completion()[1], "its input is a text, not an image"),
        (b"no image", caption()[1], r"answers\[0\]: the image can't be read"),
    ],
)
def test_inputs_must_fit_their_answers(given, answer, problem):
    """A translation of an image, a caption of a text, an unreadable image and the like are refused."""
    with pytest.raises(ReportError, match=problem):
        describe([(given, answer)])

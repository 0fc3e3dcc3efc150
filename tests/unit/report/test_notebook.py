from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

import regard.client  # noqa: F401 (tells how answers are drawn)
from regard.report import Display
from regard.report.notebook import MOST_WEIGHTS

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

HOSTILE = '</script></iframe><img src=x onerror=alert(1)> "\' srcdoc=" <!-- \u2028 & ]]> \u202e'


class Elements(HTMLParser):
    """The elements of an output, and its texts, as a page that holds it would have them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: dict[str, dict[str, str | None]] = {}
        self.texts: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        """Note an element and its attributes."""
        self.tags.append(tag)
        self.attributes[tag] = dict(attrs)

    def handle_data(self, data):
        """Note a text."""
        self.texts.append(data)


@pytest.mark.parametrize(
    "made",
    [
        translation,
        caption,
        classification,
        image_classification,
        token_classification,
        answered_question,
        completion,
    ],
)
def test_an_answer_draws_itself(made):
    """A notebook finds a frame that may run its own script alone, and a table beside it for where none runs."""
    _, answer = made()

    shown = Elements(answer._repr_html_())

    assert shown.attributes["iframe"]["sandbox"] == "allow-scripts"
    assert "default-src 'none'" in shown.attributes["iframe"]["srcdoc"]
    assert {"table", "details"} <= set(shown.tags)
    assert "script" not in shown.tags


def test_the_table_has_shares_where_weights_are_multiplied_by_norms():
    """As the viewer beside it does; each head counts the same, however large its norms are."""
    _, answer = translation()
    maps = answer.attention.maps
    scales = np.array([1000, 1, 2, 4], np.float32)[: len(maps[-1].weights), None, None]
    normed = tuple(replace(one, weighting="value_norm", weights=one.weights * scales) for one in maps)

    tables = [
        Elements(replace(answer, attention=replace(answer.attention, maps=shown))._repr_html_()).texts
        for shown in (maps, normed)
    ]

    assert tables[0] == tables[1]


def test_the_table_says_what_each_word_attends_to():
    """Without scripts, every output word stands beside its three heaviest source words, with their weights."""
    _, answer = translation()
    one = answer.attention.maps[-1]
    row = one.weights.mean(axis=0)[0]

    texts = Elements(answer._repr_html_()).texts

    heaviest = sorted(range(len(row)), key=lambda key: -row[key])[:3]
    assert texts[texts.index("la") + 1] == ", ".join(f"{one.keys[key].text} {row[key]:.3f}" for key in heaviest)
    assert "la vieille maison" in texts


def test_the_table_says_what_each_word_of_a_completion_attends_to():
    """Though that is self-attention: every output word has a row."""
    _, answer = completion()
    texts = Elements(answer._repr_html_()).texts

    rows = answer.attention.maps[-1].weights.mean(axis=0)
    keys = [one.text for one in answer.attention.maps[-1].keys]
    behind = texts[texts.index("decoder_input") + 1 :]
    assert behind[::2] == ["time", "there", "was"]
    for row, said in zip(rows, behind[1::2], strict=True):
        assert said.startswith(f"{keys[int(row.argmax())]} {row.max():.3f}, ")


def test_the_table_of_an_image_names_patches():
    """A patch is called by its place from 1."""
    _, answer = caption()
    one = answer.attention.maps[-1]
    patch = int(one.weights.mean(axis=0)[2][1:].argmax())

    texts = Elements(answer._repr_html_()).texts

    assert f"row {patch // 6 + 1}, column {patch % 6 + 1} " in texts[texts.index("circle") + 1]


def test_classes_stand_in_a_table():
    """A classification without attention is its classes; one outside all of them says so."""
    _, answer = classification(out_of_scope=True)

    shown = Elements(replace(answer, attention=None)._repr_html_())

    assert {"Out of scope", "restaurant_reservation", "75.0 %"} <= set(shown.texts)
    assert "iframe" not in shown.tags


def test_what_was_found_stands_in_a_table():
    """Entities and answers have their scores beside them, and are what the line above says."""
    entities = Elements(token_classification()[1]._repr_html_())
    answers = Elements(answered_question()[1]._repr_html_())

    assert entities.texts[0] == "Sarah, London"
    assert [*entities.texts[entities.texts.index("label") + 1 :][:4]] == ["Sarah", "PER 96.9 %", "London", "LOC 50.0 %"]
    assert answers.texts[0] == "house"
    assert [*answers.texts[answers.texts.index("score") + 1 :][:4]] == ["house", "75.0 %", "no answer", "12.5 %"]


def test_hostile_answers_stay_in_their_place():
    """Whatever a model or a user wrote is text: no element but those of any other answer."""
    (_, plain), (_, hostile) = translation(), translation(HOSTILE, HOSTILE)
    (_, sorted_plain), (_, sorted_hostile) = classification(), classification(HOSTILE)
    hostile = replace(hostile, model=replace(hostile.model, name=HOSTILE))
    label = replace(sorted_hostile.classes[0], label=HOSTILE)
    sorted_hostile = replace(sorted_hostile, classes=(label, *sorted_hostile.classes[1:]))

    for ordinary, attacked in ((plain, hostile), (sorted_plain, sorted_hostile)):
        assert set(Elements(attacked._repr_html_()).tags) == set(Elements(ordinary._repr_html_()).tags)
    framed = Elements(hostile._repr_html_()).attributes["iframe"]["srcdoc"]
    assert set(Elements(framed).tags) == set(
        Elements(Elements(plain._repr_html_()).attributes["iframe"]["srcdoc"]).tags
    )


def test_an_image_is_shown_where_it_is_given():
    """A display of an image and its caption holds the image; the caption alone lies on a plate."""
    image, answer = caption()

    assert "data:image/png;base64" in Display(image, answer)._repr_html_()
    assert "data:image/png;base64" not in answer._repr_html_()
    assert "data:image/svg+xml" in answer._repr_html_()


def test_more_than_a_notebook_should_keep_is_not_kept():
    """Beyond the limit there is the table, and the way to a report."""
    _, answer = translation()
    (one,) = layers_of("cross", "decoder", ("target", words("a")), ("source", words("b")), layers=1)
    large = replace(one, weights=one.weights.repeat(MOST_WEIGHTS, axis=0))

    shown = Elements(replace(answer, attention=attention_of([large]))._repr_html_())

    assert "iframe" not in shown.tags
    assert any("write them to a report" in text for text in shown.texts)
    assert "table" in shown.tags

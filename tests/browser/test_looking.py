from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from playwright.sync_api import expect

from ..unit.report.answers import caption, classification, image_classification, translation  # noqa: TID252
from .reading import cell, figures, opacity, plane, reading, word, written

THICKEST_VEIL = 0.82


def test_an_output_word_shows_its_row(open_report):
    """Pointing at an output word writes its weight below every source word, and frames its row in the map."""
    source, answer = translation()
    page = open_report((source, answer))

    word(page, "Output", "vieille").hover()

    assert figures(page, "Source") == written(plane(answer, "cross", "decoder", 1)[1])
    assert page.locator(".rows .marked").inner_text() == "vieille"
    assert page.locator(".links path").count() >= 1


def test_a_source_word_shows_its_column(open_report):
    """Pointing at a source word writes below every output word how much of its attention goes there."""
    source, answer = translation()
    page = open_report((source, answer))

    word(page, "Source", "house").hover()

    assert figures(page, "Output") == written(plane(answer, "cross", "decoder", 1)[:, 2])
    assert page.locator(".columns .marked").inner_text() == "house"
    assert reading(page).startswith("house is attended to by ")


def test_words_are_shaded_by_weight(open_report):
    """The heavier of two words is the darker one on light paper."""
    source, answer = translation()
    page = open_report((source, answer))
    word(page, "Output", "vieille").hover()
    page.evaluate("Promise.all(document.getAnimations().map((animation) => animation.finished))")
    row = plane(answer, "cross", "decoder", 1)[1][:3]

    shades = page.locator(".words").first.locator(".word:not(.special) bdi")
    colors = shades.evaluate_all(
        "all => all.map(one => getComputedStyle(one).backgroundColor.match(/\\d+/g).map(Number))"
    )

    assert np.argsort([-sum(color) for color in colors]).tolist() == np.argsort(row).tolist()


def test_a_cell_shows_its_weight(open_report):
    """Pointing at a cell of the map says both words and the exact weight."""
    source, answer = translation()
    page = open_report((source, answer))

    page.locator(".field").hover(position=cell(page, 2, 1))

    assert reading(page) == f"maison attends to old {plane(answer, 'cross', 'decoder', 1)[2, 1]:.3f}"


def test_what_is_pinned_stays(open_report):
    """A click pins a word, pointing elsewhere goes before it for as long as it lasts, and Escape lets go."""
    page = open_report(translation())
    word(page, "Output", "maison").click()

    word(page, "Output", "la").hover()
    assert reading(page).startswith("la attends")
    page.mouse.move(5, 5)
    assert reading(page).startswith("maison attends")
    expect(word(page, "Output", "maison")).to_have_attribute("aria-pressed", "true")

    page.keyboard.press("Escape")
    assert reading(page).startswith("Point at")
    assert set(figures(page, "Source")) == {""}


def test_layer_and_head_are_chosen(open_report):
    """The selects show another layer's or head's weights."""
    source, answer = translation()
    page = open_report((source, answer))
    word(page, "Output", "maison").click()

    page.get_by_label("Layer", exact=True).select_option("0")
    page.get_by_label("Head", exact=True).select_option("2")

    assert figures(page, "Source") == written(plane(answer, "cross", "decoder", 0, 2)[2])


def test_a_tiny_map_is_chosen(open_report):
    """There is a tiny map for the mean and each head of every layer; a click shows it, and the selects follow."""
    source, answer = translation()
    page = open_report((source, answer))
    word(page, "Output", "maison").click()
    assert page.locator(".head").count() == 2 * (1 + 3)

    page.get_by_role("button", name="layer 0, head 1").click()

    assert figures(page, "Source") == written(plane(answer, "cross", "decoder", 0, 1)[2])
    assert page.get_by_label("Layer", exact=True).input_value() == "0"
    assert page.get_by_label("Head", exact=True).input_value() == "1"
    assert page.locator(".head[aria-pressed=true]").count() == 1


def test_the_largest_weight_is_in_the_legend(open_report):
    """The legend reaches from 0 to the largest weight of the map that is shown."""
    source, answer = translation()
    page = open_report((source, answer))

    page.get_by_role("button", name="layer 0, head 1").click()

    assert page.locator(".legend").inner_text().split() == ["0", f"{plane(answer, 'cross', 'decoder', 0, 1).max():.3f}"]


@pytest.mark.parametrize(
    ("name", "kind", "stack", "titles"),
    [
        ("Encoder self-attention", "self", "encoder", ["Source"]),
        ("Decoder self-attention", "self", "decoder", ["Output so far", "Output"]),
        ("Cross-attention", "cross", "decoder", ["Source", "Output"]),
    ],
)
def test_every_kind_of_attention_is_chosen(open_report, name, kind, stack, titles):
    """Choosing a kind shows the texts that attend to each other in it, and their weights."""
    source, answer = translation()
    page = open_report((source, answer))

    page.get_by_label("Attention", exact=True).select_option(name)
    page.locator(".field").hover(position=cell(page, 1, 0))

    assert page.locator(".words h3").all_inner_texts() == titles
    assert reading(page).endswith(f" {plane(answer, kind, stack, 1)[1, 0]:.3f}")


def test_a_classification_begins_with_its_first_token(open_report):
    """The words of a classification bear the weights that [CLS] gives them, until another word is looked at."""
    text, answer = classification()
    page = open_report((text, answer))
    weights = plane(answer, "self", "encoder", 1)

    assert figures(page, "Source") == written(weights[0])
    word(page, "Source", "table").hover()
    assert figures(page, "Source") == written(weights[3])


def test_classes_are_bars(open_report):
    """The classes stand in order with their probabilities, each with a bar of that share."""
    page = open_report(classification())

    assert page.locator(".classes li").all_inner_texts() == ["restaurant_reservation\n75.0 %", "travel_alert\n12.5 %"]
    shares = page.locator(".bar").evaluate_all("all => all.map(one => one.offsetWidth / one.parentElement.offsetWidth)")
    assert shares == pytest.approx([0.75, 0.125], abs=0.01)


def test_out_of_scope_is_said(open_report):
    """A text outside all classes is said to be so, and only that."""
    page = open_report(classification(out_of_scope=True), classification())

    assert page.get_by_text("Out of scope").is_visible()
    page.get_by_role("link").nth(2).click()
    expect(page.get_by_text("Out of scope")).to_have_count(0)


def test_a_caption_word_lights_its_patches(open_report):
    """In raw patches the veil over each is as thin as its weight is large, for whichever word is chosen."""
    image, answer = caption()
    page = open_report((image, answer))
    page.get_by_role("button", name="Show patches").click()

    word(page, "Output", "above").hover()

    row = plane(answer, "cross", "decoder", 1)[3][1:]
    veil = [opacity(page, (patch % 6 + 0.5) / 6, (patch // 6 + 0.5) / 4) for patch in range(24)]
    assert veil == pytest.approx(THICKEST_VEIL * (1 - row / row.max()), abs=0.01)


def test_the_smooth_veil_goes_through_the_patches_weights(open_report):
    """Smoothed, the veil is in the middle of a patch as thick as its weight says, and between two as their mean."""
    image, answer = caption()
    page = open_report((image, answer))
    word(page, "Output", "above").hover()
    weights = plane(answer, "cross", "decoder", 1)[3][1:].reshape(4, 6)

    middle = [opacity(page, (column + 0.5) / 6, 1.5 / 4) for column in range(6)]
    between = [opacity(page, column / 6, 1.5 / 4) for column in range(1, 6)]

    row = THICKEST_VEIL * (1 - weights[1] / weights.max())
    assert middle == pytest.approx(row, abs=0.05)
    assert between == pytest.approx((row[:-1] + row[1:]) / 2, abs=0.05)


def test_outside_the_crop_the_veil_is_thickest(open_report):
    """What the model didn't look at lies under the veil, whichever word is chosen."""
    page = open_report(caption(crop=(60, 40, 120, 80)))

    assert opacity(page, 0.1, 0.1) == pytest.approx(THICKEST_VEIL, abs=0.01)


def test_a_patch_shows_its_weight(open_report):
    """Pointing at a patch says its place and the exact weight that the pinned word gives it."""
    image, answer = caption()
    page = open_report((image, answer))
    word(page, "Output", "red").click()
    box = page.locator(".picture-field").bounding_box()

    page.locator(".picture-field").hover(position={"x": box["width"] * 1.5 / 6, "y": box["height"] * 2.5 / 4})

    weight = plane(answer, "cross", "decoder", 1)[1, 1 + 2 * 6 + 1]
    assert reading(page) == f"red attends to row 3, column 2 {weight:.3f}"


def test_every_caption_word_has_a_thumbnail(open_report):
    """The strip shows the image once for each word; choosing one chooses the word."""
    page = open_report(caption())

    strip = page.get_by_role("group", name="The image, word by word")
    assert " ".join(strip.get_by_role("button").all_inner_texts()) == "a red circle above a blue square </s>"
    strip.get_by_role("button", name="blue").click()
    expect(word(page, "Output", "blue")).to_have_attribute("aria-pressed", "true")


def test_a_patch_of_a_classified_image_can_be_looked_with(open_report):
    """A classified image begins with what [CLS] attends to; a click on a patch shows what that patch attends to."""
    image, answer = image_classification()
    page = open_report((image, answer))
    assert reading(page).startswith("[CLS] attends to")
    box = page.locator(".picture-field").bounding_box()

    page.locator(".picture-field").click(position={"x": box["width"] * 5.5 / 6, "y": box["height"] * 0.5 / 4})
    page.mouse.move(5, 5)

    assert reading(page).startswith("row 1, column 6 attends to")
    assert figures(page, "Not in the image") == written([plane(answer, "self", "encoder", 1)[6, 0]])


def test_patches_ask_where_the_keys_are_patches_alone(open_report):
    """Without [CLS] among the keys, a patch of the picture and [CLS] beside it still ask, each without a tile."""
    image, answer = image_classification()
    maps = [
        replace(one, key_axis="patches", keys=one.keys[1:], weights=one.weights[..., 1:])
        for one in answer.attention.maps
    ]
    answer = replace(answer, attention=replace(answer.attention, granularity="patch", maps=tuple(maps)))
    page = open_report((image, answer))
    assert reading(page).startswith("[CLS] attends to row ")
    box = page.locator(".picture-field").bounding_box()

    page.locator(".picture-field").click(position={"x": box["width"] * 5.5 / 6, "y": box["height"] * 0.5 / 4})
    page.mouse.move(5, 5)

    most = int(plane(answer, "self", "encoder", 1)[6].argmax())
    assert reading(page).startswith(f"row 1, column 6 attends to row {most // 6 + 1}, column {most % 6 + 1} ")
    assert page.locator(".strip").count() == 0


def test_the_index_leads_to_every_answer(open_report):
    """Every answer has a link by its text, under its task; following it shows the answer."""
    page = open_report(translation(), classification(), caption())
    index = page.get_by_role("navigation", name="Answers")
    assert index.get_by_role("heading").all_inner_texts() == ["Translations", "Classifications", "Captions"]

    index.get_by_role("link", name="book a table for two").click()
    expect(page.locator("article h2")).to_have_text("Classification")
    expect(index.locator("[aria-current]")).to_have_text("book a table for two")

    page.go_back()
    expect(page.locator("article h2")).to_have_text("Translation")


def test_an_empty_answer_has_a_name(open_report):
    """A caption without a word is in the index and the picker by its number."""
    page = open_report(translation(), caption(""))

    page.get_by_role("navigation", name="Answers").get_by_role("link", name="Caption 2, empty").click()

    expect(page.locator("article h2")).to_have_text("Caption")
    assert page.locator(".picker option").all_text_contents() == ["the old house", "Caption 2, empty"]


def test_one_answer_needs_no_index(open_report):
    """A report of one answer shows neither index nor picker, and leaves no room for them."""
    page = open_report(translation())

    assert not page.get_by_role("navigation").is_visible()
    assert not page.locator(".picker").is_visible()
    assert page.locator("article").bounding_box()["x"] == page.locator("h1").bounding_box()["x"]


def test_a_narrow_page_picks_answers_by_a_select(open_report):
    """Where there is no room for the index, a select stands in for it."""
    page = open_report(translation(), classification(), width=400)
    assert not page.get_by_role("navigation").is_visible()

    page.get_by_label("Answer", exact=True).select_option("book a table for two")

    expect(page.locator("article h2")).to_have_text("Classification")


def test_provenance_is_shown(open_report):
    """Below an answer stand its model, its precision, its package and how exactly its weights were stored."""
    page = open_report(translation())

    facts = page.locator("article footer").inner_text()
    assert "en-fr/1" in facts
    assert "fp32" in facts
    assert "c0ffee" + "0" * 58 in facts
    assert "uint16, within 7" in facts


@pytest.mark.parametrize(
    ("reduction", "name"),
    [
        ("none", "head 2"),
        ("mean", "head 2"),
        ("rollout", "rollout"),
        ("alignment_heads", "mean of the alignment heads"),
    ],
)
def test_what_is_of_several_layers_is_called_no_head(open_report, reduction, name):
    """The mean of one head is that head; its rollout through the layers is not."""
    source, answer = translation()
    maps = [
        replace(one, reduction=reduction, heads=(2,), weights=one.weights[2:3]) for one in answer.attention.maps[-1:]
    ]
    page = open_report((source, replace(answer, attention=replace(answer.attention, maps=tuple(maps)))))

    assert page.get_by_label("Head", exact=True).locator("option").all_inner_texts() == [name]
    assert page.locator(".head").count() == 1


def test_a_map_of_reduced_heads_offers_no_heads(open_report):
    """Where the server already took the mean of heads there is one tiny map for a layer."""
    source, answer = translation()
    maps = [
        replace(one, reduction="mean", weights=one.weights.mean(axis=0, keepdims=True)) for one in answer.attention.maps
    ]
    page = open_report((source, replace(answer, attention=replace(answer.attention, maps=tuple(maps)))))

    assert page.get_by_label("Head", exact=True).locator("option").all_inner_texts() == ["mean of heads"]
    assert page.locator(".head").count() == 2

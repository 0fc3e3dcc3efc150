from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page

from ..unit.report.answers import caption, classification, image_classification, translation  # noqa: TID252
from .reading import figures, plane, word

SCREENSHOTS = Path(__file__).parents[2] / "build" / "results" / "report"
LONG_WORD = "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft"
LONG_TEXT = " ".join(f"word{number}" for number in range(127))
HOSTILE = "</script><img/src=x/onerror=alert(1)> <b>bold</b> &amp; \u2028 ${document} \ud83d"

PIXEL = """(canvas, [across, down]) => [...canvas.getContext("2d").getImageData(
    Math.floor(across * canvas.width), Math.floor(down * canvas.height), 1, 1).data]"""
CONTRASTS = Path(__file__).with_name("contrasts.js").read_text("utf-8")


def overflow(page: Page) -> float:
    """Return by how many pixels the page is wider than its window."""
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


ANSWERS = {
    "translation": lambda: translation(
        "Turn off the light before you go to bed .", "Éteins la lumière avant d'aller au lit ."
    ),
    "classification": lambda: classification("do i need to apply for a visa for my trip to india", out_of_scope=True),
    "caption": lambda: caption("a small red circle above a large blue square"),
    "image classification": image_classification,
    "one token": lambda: translation("", ""),
    "128 tokens": lambda: translation(LONG_TEXT, LONG_TEXT, layers=1, heads=2),
    "long words": lambda: translation(LONG_WORD, f"le {LONG_WORD}"),
    "right to left": lambda: translation("the old house", "البيت القديم الكبير"),
    "emoji": lambda: classification("book 🏝️ 👩🏽‍🚀 flights ✈️ 🇫🇷"),
    "hostile": lambda: translation(HOSTILE, HOSTILE),
}


@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("name", ANSWERS)
def test_no_page_is_wider_than_its_window(open_report, name, width):
    """Whatever an answer holds, the page doesn't scroll sideways: wide maps do so within their boxes."""
    page = open_report(ANSWERS[name](), classification(LONG_WORD), width=width)

    assert page.locator("article").count() == 1
    assert overflow(page) == 0


@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", ["translation", "classification", "caption"])
def test_text_stands_out(open_report, name, theme, width):
    """All text, that on shaded words too, has a contrast of 4.5 or more to what is behind it (WCAG 2, 1.4.3)."""
    page = open_report(ANSWERS[name](), classification(), width=width, theme=theme)
    page.evaluate("document.getAnimations().forEach((one) => one.finish())")

    contrasts = page.evaluate(CONTRASTS)

    assert len(contrasts) > 30
    assert [(round(contrast, 2), text) for contrast, text in contrasts if contrast < 4.5] == []
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}-{theme}-{width}.png", full_page=True)


def test_the_theme_is_the_system_s_until_it_is_chosen(open_report):
    """The page follows the system's theme; its button changes to the other, and the words are shaded anew."""
    look = """document.querySelector(".word bdi").checkVisibility()
        && getComputedStyle(document.documentElement).backgroundColor"""
    page = open_report(translation(), theme="dark")
    dark = page.evaluate(look)

    page.get_by_role("button", name="Light").click()

    light = page.evaluate(look)
    assert light != dark
    page.get_by_role("button", name="Dark").click()
    assert page.evaluate(look) == dark


def test_nothing_moves_for_those_who_ask(open_report):
    """With reduced motion no transition is left on the page."""
    look = """[...document.querySelectorAll("*")].some((one) => getComputedStyle(one).transitionDuration !== "0s")"""

    assert open_report(translation(), classification(), motion="reduce").evaluate(look) is False
    assert open_report(translation(), classification()).evaluate(look) is True


def test_hostile_text_is_text(open_report):
    """Markup in an answer is shown as it was written and makes no element."""
    page = open_report(translation(HOSTILE, HOSTILE), classification(HOSTILE))

    assert word(page, "Output", "<img/src").is_visible() or word(page, "Output", "</script>").is_visible()
    assert page.locator("main img, main b, nav img, nav b").count() == 0


def test_a_text_from_right_to_left_is_walked_so(open_report):
    """Words of a text from right to left stand and are walked from right to left."""
    page = open_report(ANSWERS["right to left"]())
    words = page.get_by_role("group", name="Output", exact=True).get_by_role("button")
    assert words.nth(0).bounding_box()["x"] > words.nth(1).bounding_box()["x"]

    words.nth(0).focus()
    page.keyboard.press("ArrowLeft")

    assert words.nth(1).evaluate("word => word === document.activeElement")


def test_one_token_attends_with_all_it_has(open_report):
    """An output of its end alone still shows its weight."""
    page = open_report(ANSWERS["one token"]())

    assert figures(page, "Source") == ["1.000"]


def test_a_wide_map_scrolls_within_its_box(open_report):
    """A map of 128 columns scrolls in its box, with the labels of rows and columns kept in sight."""
    page = open_report(ANSWERS["128 tokens"](), width=400)
    box = page.locator(".map .scroll")

    box.evaluate("box => box.scrollTo(600, 600)")

    assert box.evaluate("box => box.scrollWidth > box.clientWidth && box.scrollLeft === 600")
    left, top = (page.locator(side).bounding_box() for side in (".rows", ".columns"))
    assert left["x"] == pytest.approx(box.bounding_box()["x"], abs=3)
    assert top["y"] == pytest.approx(box.bounding_box()["y"], abs=3)


def test_a_map_is_drawn_however_large(open_report):
    """A map of more pixels than a browser's canvas holds is drawn all the same, where its labels say."""
    source, answer = classification(" ".join(f"t{number}" for number in range(1200)), layers=1, heads=1)
    page = open_report((source, answer))
    field, legend = page.locator(".field canvas"), page.locator(".legend canvas")
    weights = plane(answer, "self", "encoder", 0)
    query, key = np.unravel_index(weights.argmax(), weights.shape)
    at = [(key + 0.5) / weights.shape[1], (query + 0.5) / weights.shape[0]]

    assert field.evaluate(PIXEL, at) == legend.evaluate(PIXEL, [0.999, 0.5])
    assert field.bounding_box()["height"] == pytest.approx(page.locator(".rows").bounding_box()["height"], abs=1)

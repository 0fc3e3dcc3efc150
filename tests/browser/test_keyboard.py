from __future__ import annotations

from playwright.sync_api import Page

from ..unit.report.answers import caption, classification, translation  # noqa: TID252
from .reading import plane, reading, word

FOCUSED = """() => {
    const one = document.activeElement;
    const name = one.getAttribute("aria-label") ?? one.textContent.trim();
    return [name, getComputedStyle(one).outlineStyle !== "none" && parseFloat(getComputedStyle(one).outlineWidth) >= 2];
}"""


def stops(page: Page) -> list[str]:
    """Return the names of what Tab reaches, in order; each must be seen to have the focus."""
    page.locator("body").evaluate("body => { body.tabIndex = -1; body.focus(); }")
    found: list[str] = []
    while True:
        page.keyboard.press("Tab")
        name, outlined = page.evaluate(FOCUSED)
        if page.evaluate("document.activeElement === document.body") or len(found) > 40:
            return found
        assert outlined, f"{name} has the focus and doesn't show it"
        found.append(name)


def test_tab_reaches_everything(open_report):
    """Tab goes through the page in reading order, with one stop for each list, and shows where it is."""
    page = open_report(translation(), classification())

    reached = stops(page)

    assert reached[:6] == ["Skip to the answer", "Dark", "the old house", "Attention", "Layer", "Head"]
    assert reached[6] in {"the", "old", "house"}
    assert len(reached) == 10


def test_arrows_walk_among_words(open_report):
    """Arrow keys, Home and End walk along a text; what has the focus is looked at, and Enter pins it."""
    page = open_report(translation())
    word(page, "Output", "la").focus()

    page.keyboard.press("ArrowRight")
    assert reading(page).startswith("vieille attends to")
    page.keyboard.press("End")
    assert reading(page).startswith("</s> attends to")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowLeft")
    assert reading(page).startswith("la attends to")

    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert word(page, "Output", "vieille").get_attribute("aria-pressed") == "true"


def test_arrows_walk_in_the_map(open_report):
    """In the map, arrow keys go from cell to cell, not beyond its edges, and say each weight."""
    source, answer = translation()
    weights = plane(answer, "cross", "decoder", 1)
    page = open_report((source, answer))
    word(page, "Output", "vieille").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Home")
    assert reading(page) == f"vieille attends to the {weights[1, 0]:.3f}"

    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    assert reading(page) == f"maison attends to old {weights[2, 1]:.3f}"

    for _ in range(9):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("End")
    assert reading(page) == f"</s> attends to </s> {weights[3, 3]:.3f}"


def test_arrows_walk_among_tiny_maps(open_report):
    """Among the tiny maps, up and down go between layers, left and right between heads; Enter chooses."""
    page = open_report(translation())
    page.get_by_role("button", name="layer 1, mean of heads").focus()

    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")

    chosen = page.locator(".head[aria-pressed=true]")
    assert chosen.get_attribute("aria-label") == "layer 0, head 0"


def test_arrows_walk_over_the_picture(open_report):
    """Over an image, arrow keys go from patch to patch."""
    image, answer = caption()
    page = open_report((image, answer))
    word(page, "Output", "red").focus()
    page.keyboard.press("Enter")
    for _ in range(2):
        page.keyboard.press("Shift+Tab")

    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")

    weight = plane(answer, "cross", "decoder", 1)[1, 1 + 6 + 1]
    assert reading(page) == f"red attends to row 2, column 2 {weight:.3f}"


def test_the_answer_can_be_skipped_to(open_report):
    """The first stop leads past the index into the answer."""
    page = open_report(translation(), classification(), number=2)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")

    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Attention"
    assert page.locator("article h2").inner_text() == "Classification"

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import FrameLocator, Page

import regard.client  # noqa: F401 (tells how answers are drawn)
from regard.report import Display

from ..unit.report.answers import caption, classification, translation  # noqa: TID252
from .reading import plane, written
from .test_appearance import HOSTILE

SCREENSHOTS = Path(__file__).parents[2] / "build" / "results" / "notebook"


@pytest.fixture
def open_notebook(blank: Page):
    """Return a function that shows an answer's output as notebooks do: put into a page by a script."""
    complaints = []

    def complain(said) -> None:
        complaints.append(str(said))

    def opened(shown, width=900, theme="light") -> Page:
        blank.set_viewport_size({"width": width, "height": 900})
        blank.emulate_media(color_scheme=theme)
        blank.goto("about:blank")
        blank.set_content("<!doctype html><body></body>")
        blank.evaluate("html => { document.body.innerHTML = html; }", shown._repr_html_())
        return blank

    blank.on("console", complain)
    blank.on("pageerror", complain)
    yield opened
    blank.remove_listener("console", complain)
    blank.remove_listener("pageerror", complain)
    assert complaints == []


def frame(page: Page) -> FrameLocator:
    """Return the frame of the viewer."""
    return page.frame_locator("iframe")


def figures(page: Page, title: str) -> list[str]:
    """Return the weights below the words of a text."""
    return frame(page).get_by_role("group", name=title, exact=True).locator("small").all_inner_texts()


def test_an_answer_is_looked_at_in_a_notebook(open_notebook):
    """The frame is the report's viewer: a word that is pointed at shows its row."""
    _, answer = translation()
    page = open_notebook(answer)
    output = frame(page).get_by_role("group", name="Output", exact=True)

    output.get_by_role("button", name="vieille").hover()

    assert figures(page, "Source") == written(plane(answer, "cross", "decoder", 1)[1])


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 900])
def test_images_and_plates_are_shown(open_notebook, width, theme):
    """A caption is drawn over its image, or over a plate, within the width that the notebook gives."""
    image, answer = caption()
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    for name, shown in (("image", Display(image, answer)), ("plate", answer)):
        page = open_notebook(shown, width, theme)
        frame(page).get_by_role("group", name="Output", exact=True).get_by_role("button", name="circle").hover()

        inner = frame(page).locator("html")
        assert inner.evaluate("page => page.scrollWidth <= page.clientWidth")
        assert frame(page).locator(".picture-field img").evaluate("image => image.naturalWidth > 0")
        page.screenshot(path=SCREENSHOTS / f"{name}-{theme}-{width}.png")


def test_a_classification_is_shown(open_notebook):
    """The classes stand beside the frame and in it."""
    _, answer = classification()
    page = open_notebook(answer)

    assert page.locator("td", has_text="restaurant_reservation").is_visible()
    assert frame(page).locator(".class-name").first.inner_text() == "restaurant_reservation"


def test_hostile_text_is_text_in_a_notebook(open_notebook):
    """Markup in an answer makes no element, in the frame or around it."""
    _, answer = translation(HOSTILE, HOSTILE)
    page = open_notebook(answer)
    frame(page).locator("article").wait_for()

    assert page.locator("img, b").count() == 0
    assert frame(page).locator("main img, main b").count() == 0

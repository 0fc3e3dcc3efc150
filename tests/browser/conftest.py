"""Reports in a headless Chromium: Debian's, driven by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Error, Page, Playwright, Request, sync_playwright

from regard.report import render

Opened = Callable[..., Page]


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    """Return Playwright; ended with the module, since its event loop would be in the way of others."""
    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="module")
def browser(playwright: Playwright) -> Iterator[Browser]:
    """Return the browser; without one the module's tests are skipped."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no browser: install Debian's package `chromium`")
    launched = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
    yield launched
    launched.close()


@pytest.fixture(scope="module")
def blank(browser: Browser) -> Page:
    """Return the one page in which all reports of the module are opened."""
    return browser.new_page()


@pytest.fixture
def open_report(blank: Page, tmp_path: Path) -> Iterator[Opened]:
    """Return a function that opens a report of answers, each with its input, from a file.

    However a test uses the page, it must say nothing on the console, raise no error and ask for
    nothing from anywhere.
    """
    file, complaints = tmp_path / "report.html", []

    def note(what: str, said: object) -> None:
        complaints.append(f"{what}: {said}")

    def note_request(request: Request) -> None:
        if not request.url.startswith("data:") and request.url.partition("#")[0] != file.as_uri():
            note("request", request.url)

    def note_console(message: ConsoleMessage) -> None:
        note("console", message.text)

    def note_error(error: Error) -> None:
        note("error", error)

    def opened(*answers, width=1400, height=900, theme="light", motion="no-preference", number=1) -> Page:
        file.write_text(render(answers), "utf-8")
        blank.mouse.move(0, 0)
        blank.set_viewport_size({"width": width, "height": height})
        blank.emulate_media(color_scheme=theme, reduced_motion=motion)
        blank.goto(f"{file.as_uri()}#{number}")
        return blank

    listeners = {"console": note_console, "pageerror": note_error, "request": note_request}
    for event, listener in listeners.items():
        blank.on(event, listener)
    yield opened
    for event, listener in listeners.items():
        blank.remove_listener(event, listener)
    assert complaints == []

"""Reports and the playground in a headless Chromium: Debian's, driven by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Error, Page, Playwright, Request, sync_playwright

from regard.cli.demo.server import ServerProcess, serving
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
    """Return the one page in which a module opens whatever it looks at."""
    return browser.new_page()


@pytest.fixture
def open_report(blank: Page, tmp_path: Path) -> Iterator[Opened]:
    """Return a function that opens a report of answers, each with its input, from a file.

    However a test uses the page, it must say nothing on the console, raise no error and ask for
    nothing from anywhere.
    """
    file = tmp_path / "report.html"

    def opened(*answers, width=1400, height=900, theme="light", motion="no-preference", number=1) -> Page:
        file.write_text(render(answers), "utf-8")
        return _open(blank, f"{file.as_uri()}#{number}", width, height, theme, motion)

    with _uncomplaining(blank, file.as_uri()):
        yield opened


@pytest.fixture(scope="module")
def server(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Yield a server of the demonstration models."""
    with serving(packages, tmp_path_factory.mktemp("server") / "log") as running:
        yield running


@pytest.fixture
def open_playground(blank: Page, server: ServerProcess) -> Iterator[Opened]:
    """Return a function that opens the playground of a server, which must behave as a report does.

    What the server refuses, Chromium itself says on the console; no more than that.
    """
    url = f"http://127.0.0.1:{server.http_port}/playground"

    def opened(width=1400, height=900, theme="light", motion="no-preference") -> Page:
        page = _open(blank, url, width, height, theme, motion)
        page.locator(".tasks button").first.wait_for()
        return page

    with _uncomplaining(blank, url, "Failed to load resource"):
        yield opened
    blank.unroute_all()


def _open(page: Page, url: str, width: int, height: int, theme: str, motion: str) -> Page:
    page.mouse.move(0, 0)
    page.set_viewport_size({"width": width, "height": height})
    page.emulate_media(color_scheme=theme, reduced_motion=motion)
    page.goto(url)
    return page


@contextmanager
def _uncomplaining(page: Page, url: str, *known: str) -> Iterator[None]:
    """Hold that the page says nothing on the console, raises no error, and asks for nothing that isn't below `url`."""
    complaints = []

    def note(what: str, said: object) -> None:
        complaints.append(f"{what}: {said}")

    def note_request(request: Request) -> None:
        if not request.url.startswith(("data:", url)):
            note("request", request.url)

    def note_console(message: ConsoleMessage) -> None:
        if not message.text.startswith(known):
            note("console", message.text)

    def note_error(error: Error) -> None:
        note("error", error)

    listeners = {"console": note_console, "pageerror": note_error, "request": note_request}
    for event, listener in listeners.items():
        page.on(event, listener)
    yield
    for event, listener in listeners.items():
        page.remove_listener(event, listener)
    assert complaints == []

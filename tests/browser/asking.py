"""How the playground is asked in a test, and what must hold of its page and of what it gives to copy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from google.protobuf import json_format
from google.protobuf.message import Message
from playwright.sync_api import Locator, Page, Request, Route

from regard.cli.demo.server import ServerProcess
from regard.client import Client

from .test_appearance import CONTRASTS, overflow

SCREENSHOTS = Path(__file__).parents[2] / "build" / "results" / "playground"
HOSTILE = 'it\'s </script><img src=x onerror=alert(1)> "$(touch broken)" `id` \\ %s ${x}\n\t👩🏽‍🚀 <b>é'
UNNAMED = """[...document.querySelectorAll("button, select, input, textarea, summary")]
    .filter((one) => one.checkVisibility() && !one.closest("label") && !one.ariaLabel && !one.textContent.trim())
    .map((one) => one.outerHTML)"""
GRPCURL = """#!/bin/sh
printf '%s\\0' "$@" > arguments
case "$*" in *"-d @"*) cat > body;; esac
"""


def choose(page: Page, task: str) -> None:
    """Choose a task."""
    page.get_by_role("group", name="Task").get_by_role("button", name=task).click()


def ask(page: Page, text: str) -> None:
    """Type a text and ask."""
    page.get_by_label("Text", exact=True).fill(text)
    page.locator(".run").click()


def ask_example(page: Page, task: str) -> None:
    """Ask a task's first example, and wait for the answer."""
    choose(page, task)
    page.get_by_role("group", name="Examples").get_by_role("button").first.click()
    facts(page).wait_for()


def show_options(page: Page) -> None:
    """Open the options."""
    page.get_by_text("More options").click()


def facts(page: Page) -> Locator:
    """Return the line about a stream that is there once it has ended."""
    return page.locator(".facts:not(:empty)")


def snippet(page: Page, way: str) -> str:
    """Return the request as a way to send it has it."""
    page.get_by_role("group", name="Copy the request as").get_by_role("button", name=way).click()
    return page.locator(".copy code").inner_text()


def client_of(server: ServerProcess) -> Client:
    """Return a client of the server behind the page."""
    return Client(f"127.0.0.1:{server.grpc_port}")


def fulfill_in_part(route: Route, events: int) -> None:
    """Answer a request with the first events of its stream alone."""
    whole = route.fetch()
    route.fulfill(response=whole, body=b"".join(whole.body().splitlines(keepends=True)[:events]))


def check_command(command: str, sent: Request, request: type[Message], directory: Path) -> None:
    """Hold that a shell that runs the command in `directory` gives grpcurl the message that the page sent."""
    (directory / "grpcurl").write_text(GRPCURL)
    (directory / "grpcurl").chmod(0o755)
    path = f"{directory}{os.pathsep}{os.environ['PATH']}"

    subprocess.run(["sh", "-c", command], cwd=directory, env={"PATH": path}, check=True)

    arguments = (directory / "arguments").read_text().rstrip("\0").split("\0")
    *_, target, method = arguments
    given = arguments[arguments.index("-d") + 1]
    body = (directory / "body").read_text() if given == "@" else given
    assert json_format.Parse(body, request()) == json_format.Parse(sent.post_data, request())
    assert sent.url.endswith(f"/playground/{method}")
    assert target.startswith("127.0.0.1:")
    assert not (directory / "broken").exists()


def run_program(program: str, directory: Path) -> str:
    """Run a Python program in `directory`, and return what it prints."""
    done = subprocess.run([sys.executable, "-c", program], cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def check_looks(page: Page, name: str) -> None:
    """Hold that no text is faint in either theme, nothing is too wide and all has a name; keep pictures of it."""
    page.mouse.move(0, 0)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme, reduced_motion="reduce")
        page.evaluate("document.getAnimations().forEach((one) => one.finish())")

        assert overflow(page) == 0
        assert [(round(contrast, 2), text) for contrast, text in page.evaluate(CONTRASTS) if contrast < 4.5] == []
        assert page.evaluate(UNNAMED) == []
        page.screenshot(path=SCREENSHOTS / f"{name}-{theme}.png", full_page=True)

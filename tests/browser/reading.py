"""What a page shows, read from its elements, and what it should show, from an answer's weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from playwright.sync_api import Locator, Page


def word(page: Page, title: str, text: str) -> Locator:
    """Return the first word `text` of the text called `title`."""
    return page.get_by_role("group", name=title, exact=True).get_by_role("button", name=text).first


def figures(page: Page, title: str) -> list[str]:
    """Return the weights written below the words of the text called `title`."""
    return page.get_by_role("group", name=title, exact=True).locator("small").all_inner_texts()


def written(weights: Sequence[float] | np.ndarray) -> list[str]:
    """Return weights as the page writes them."""
    return [f"{weight:.3f}" for weight in weights]


def plane(answer, kind: str, stack: str, layer: int, head: int | None = None) -> np.ndarray:
    """Return the weights [queries, keys] of a head, or the mean of all heads."""
    (one,) = (m for m in answer.attention.maps if (m.kind, m.stack, m.layer) == (kind, stack, layer))
    return one.weights.mean(axis=0) if head is None else one.weights[head]


def cell(page: Page, query: int, key: int) -> dict[str, float]:
    """Return where in the heat map a cell is, as the position of a pointer."""
    field = page.locator(".field")
    box = field.bounding_box()
    rows, columns = page.locator(".rows .label").count(), page.locator(".columns .label").count()
    return {"x": (key + 0.5) * box["width"] / columns, "y": (query + 0.5) * box["height"] / rows}


def opacity(page: Page, x: float, y: float) -> float:
    """Return how thick the veil is, from 0 to 1, at a share of the picture's width and height."""
    look = """(canvas, [x, y]) => {
        const copy = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
        copy.drawImage(canvas, -Math.floor(x * canvas.width), -Math.floor(y * canvas.height));
        return copy.getImageData(0, 0, 1, 1).data[3] / 255;
    }"""
    return page.locator(".picture-field canvas").evaluate(look, [x, y])


def reading(page: Page) -> str:
    """Return the line that says what is looked at."""
    return page.locator(".reading").inner_text()

"""How answers draw themselves where a page shows them."""

from __future__ import annotations

from functools import singledispatch


@singledispatch
def html_of(answer: object) -> str | None:
    """Return how a notebook shows an answer, as HTML; None where nobody has told how to draw its kind."""
    return None


class Shown:
    """An answer that a notebook draws, where IPython looks for how; `regard.client` tells how."""

    __slots__ = ()

    def _repr_html_(self) -> str | None:
        return html_of(self)

"""Panics of Rust, which `tokenizers` is written in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from regard.errors import EngineError


@contextmanager
def panics_caught() -> Iterator[None]:
    """Raise an `EngineError` for a panic within: pyo3 makes of one what no `except Exception` catches.

    It would end the thread that it comes up in, for all requests; so it ends the one whose text it was.
    """
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # which can't be imported
            raise
        raise EngineError("the model's tokenizer failed on the request's text") from error

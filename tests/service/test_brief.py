"""What is brief is done at once, what takes longer in the threads; a caller sees no difference."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import pytest

from regard.rpc.resources import BRIEF_CHARACTERS
from regard.v1 import classification_pb2, translation_pb2

from .conftest import Running, Serve

CAT = "The cat sat on the mat."
LONG = f"{CAT} " * (BRIEF_CHARACTERS // len(CAT) + 1)
"""A little more than is brief."""


def threads_of(running: Running, monkeypatch: pytest.MonkeyPatch) -> Mock:
    """Return what counts the calls by which the server's threads are given work."""
    submit = Mock(wraps=running.server._threads.submit)
    monkeypatch.setattr(running.server._threads, "submit", submit)
    return submit


@pytest.mark.parametrize(
    ("fields", "threads"),
    [
        ({"texts": [CAT]}, 0),
        ({"texts": [CAT, CAT]}, 0),
        ({"texts": [LONG]}, 1),
        ({"texts": [CAT, LONG]}, 1),
        ({"texts": [CAT], "generation": {"token_logprobs": True}}, 1),
        ({"texts": [CAT], "attention": {}}, 2),
    ],
)
async def test_translations(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], threads: int
) -> None:
    """A short text is read, and what comes of it written, at once; what is long or told in detail takes threads."""
    async with serve() as running:
        submit = threads_of(running, monkeypatch)
        response = await running.translation.Translate(translation_pb2.TranslateRequest(truncate=True, **fields))

    assert all(result.translation.text.startswith(CAT) for result in response.results)
    assert submit.call_count == threads


async def test_a_long_output_is_written_in_the_threads(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token more than is brief, and a thread writes it."""
    async with serve() as running:
        submit = threads_of(running, monkeypatch)
        response = await running.translation.Translate(translation_pb2.TranslateRequest(texts=[CAT]))
        tokens = response.results[0].translation.target_tokens
        for most, threads in ((tokens, 0), (tokens - 1, 1)):
            monkeypatch.setattr("regard.rpc.generation.BRIEF_TOKENS", most)
            response = await running.translation.Translate(translation_pb2.TranslateRequest(texts=[CAT]))
            assert response.results[0].translation.text == CAT
            assert submit.call_count == threads


async def test_classes(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few classes are told at once, many in the threads."""
    request = classification_pb2.ClassifyRequest(inputs=[{"text": CAT}], top_k=2)
    async with serve() as running:
        submit = threads_of(running, monkeypatch)
        for most, threads in ((2, 0), (1, 1)):
            monkeypatch.setattr("regard.rpc.classification.BRIEF_CLASSES", most)
            response = await running.classification.Classify(request)
            assert len(response.results[0].classification.classes) == 2
            assert submit.call_count == threads

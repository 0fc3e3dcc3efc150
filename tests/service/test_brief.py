"""What is brief is done at once, what takes longer in the threads; a caller sees no difference."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

import pytest

from regard.rpc.resources import BRIEF_CHARACTERS
from regard.v1 import classification_pb2, translation_pb2

from .conftest import Running, Serve

CAT = "The cat sat on the mat."
LONG = f"{CAT} " * (BRIEF_CHARACTERS // len(CAT) + 1)
"""A little more than is brief."""


class Counting(Executor):
    """Threads that count what they are given."""

    def __init__(self) -> None:
        self.given = 0
        self._threads = ThreadPoolExecutor(1)

    def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run it."""
        self.given += 1
        return self._threads.submit(work, *args, **kwargs)


def counted(running: Running) -> Counting:
    """Return what takes the place of the server's threads."""
    counting = Counting()
    object.__setattr__(running.server._resources, "threads", counting)
    return counting


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
async def test_translations(serve: Serve, fields: dict[str, Any], threads: int) -> None:
    """A short text is read, and what comes of it written, at once; what is long or told in detail takes threads."""
    async with serve() as running:
        counting = counted(running)
        response = await running.translation.Translate(translation_pb2.TranslateRequest(truncate=True, **fields))

    assert all(result.translation.text.startswith(CAT) for result in response.results)
    assert counting.given == threads


async def test_a_long_output_is_written_in_the_threads(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token more than is brief, and a thread writes it."""
    async with serve() as running:
        counting = counted(running)
        response = await running.translation.Translate(translation_pb2.TranslateRequest(texts=[CAT]))
        tokens = response.results[0].translation.target_tokens
        for most, threads in ((tokens, 0), (tokens - 1, 1)):
            monkeypatch.setattr("regard.rpc.generation.BRIEF_TOKENS", most)
            response = await running.translation.Translate(translation_pb2.TranslateRequest(texts=[CAT]))
            assert response.results[0].translation.text == CAT
            assert counting.given == threads


async def test_classes(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few classes are told at once, many in the threads."""
    request = classification_pb2.ClassifyRequest(inputs=[{"text": CAT}], top_k=2)
    async with serve() as running:
        counting = counted(running)
        for most, threads in ((2, 0), (1, 1)):
            monkeypatch.setattr("regard.rpc.classification.BRIEF_CLASSES", most)
            response = await running.classification.Classify(request)
            assert len(response.results[0].classification.classes) == 2
            assert counting.given == threads

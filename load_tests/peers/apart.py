"""A contestant in a process of its own, so that its memory is its own and its threads meet no other's pool.

`python -m load_tests.peers.apart` is that process: it takes calls from its input and answers on its output.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from load_tests.peers.contestants import Contestant
from load_tests.peers.sources import Source


class Apart:
    """The contestant that `make`, which is pickled, makes in another process; asked as if it were here."""

    def __init__(self, make: Callable[[], Contestant]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __spec__.name], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.name: str = self._ask(make)

    def translate(self, sources: Sequence[Source], concurrency: int, beams: int = 1) -> list[int]:
        """Let it translate."""
        counts: list[int] = self._ask(("translate", sources, concurrency, beams))
        return counts

    def translate_within(self, sources: Sequence[Source], concurrency: int, beams: int = 1) -> list[int]:
        """Let the engine of a service translate, in the process of its server."""
        counts: list[int] = self._ask(("translate_within", sources, concurrency, beams))
        return counts

    def peak_bytes(self) -> int:
        """Return the most memory that whoever runs the model has held."""
        return int(self._ask(("peak_bytes",)))

    def close(self) -> None:
        """Let it free what it holds, and end its process."""
        self._ask(("close",))
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _ask(self, question: object) -> Any:
        """Return the answer. Raises `RuntimeError` with the other process's words if it failed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        pickle.dump(question, self._process.stdin)
        self._process.stdin.flush()
        try:
            well, answer = pickle.load(self._process.stdout)
        except EOFError:
            raise RuntimeError(f"a contestant's process ended with {self._process.wait()}") from None
        if not well:
            raise RuntimeError(f"a contestant failed: {answer}")
        return answer


class Within:
    """The engine of a service, asked without a call."""

    def __init__(self, service: Apart) -> None:
        self.name = service.name.replace("service", "engine")
        self._service = service

    def translate(self, sources: Sequence[Source], concurrency: int, beams: int = 1) -> list[int]:
        """Let it translate."""
        return self._service.translate_within(sources, concurrency, beams)

    def peak_bytes(self) -> int:
        """Return the most memory that the server has held."""
        return self._service.peak_bytes()

    def close(self) -> None:
        """Leave it to the service."""


def main() -> None:
    """Make the contestant that the first message brings, then call its methods."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no answer
    contestant: Contestant | None = None
    while True:
        try:
            question = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            if contestant is None:
                contestant = question()
                answer = contestant.name
            else:
                answer = getattr(contestant, question[0])(*question[1:])
            told = (True, answer)
        except Exception as error:
            told = (False, repr(error))
        pickle.dump(told, answers)
        answers.flush()


if __name__ == "__main__":
    main()

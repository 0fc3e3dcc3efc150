"""`--report`: answers gathered while a command runs, and the page that they end in."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

import typer

from regard.cli.screen import ERR, refuse

if TYPE_CHECKING:
    from regard.client import Failure
    from regard.report import Answer, Input

A = TypeVar("A", bound="Answer")
G = TypeVar("G", str, bytes)
_SOME_FAILED = 1
"""What a command ends with if some of its lines or files failed; a call that was wrong ends with 2."""


class Report:
    """The page that is written to `path` (None: to nowhere) when the block ends with its answers.

    It shows as many of the first answers as a page holds, and says on stderr what it leaves out. Without answers no
    page is written, and stderr says so.
    """

    def __init__(self, path: Path | None) -> None:
        if path is not None and path.is_dir():
            refuse(f"can't write {path}: it is a directory")
        if path is not None and not path.parent.is_dir():
            refuse(f"can't write {path}: {path.parent} is no directory")
        self._path = path
        self._answers: list[tuple[Input, Answer]] = []
        self._weights = 0
        self._left_out = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        failed = isinstance(error, typer.Exit) and error.exit_code == _SOME_FAILED
        if self._path is None or not (error is None or failed):
            return
        if self._answers:
            self._write(self._path)
        else:
            ERR.print(f"no report written to {self._path}: no answer to show", soft_wrap=True)

    def keep(self, given: Input, answer: A) -> A:
        """Put an answer on the page, if there is one with room; returns it.

        The first is put there however large it is, so that the page's own refusal tells what is too much of it.
        """
        if self._path is None:
            return answer
        from regard.report import MAX_ANSWERS, MOST_WEIGHTS, weights_of

        self._weights += weights_of(answer)
        if self._answers and (len(self._answers) == MAX_ANSWERS or self._weights > MOST_WEIGHTS):
            self._left_out += 1
        else:
            self._answers.append((given, answer))
        return answer

    def keep_each(
        self, inputs: Iterable[G], answer_each: Callable[[Iterable[G]], Iterator[A | Failure]]
    ) -> Iterator[A | Failure]:
        """Yield the answers to texts or images in order; what is no failure is kept."""
        from regard.client import Failure

        asked: deque[G] = deque()

        def noted() -> Iterator[G]:
            for one in inputs:
                asked.append(one)
                yield one

        for answer in answer_each(noted()):
            given = asked.popleft()
            yield answer if isinstance(answer, Failure) else self.keep(given, answer)

    def _write(self, path: Path) -> None:
        from regard.report import write_report

        try:
            write_report(path, self._answers)
        except OSError as error:
            refuse(f"can't write {path}: {error.strerror}")
        shown = len(self._answers)
        ERR.print(f"report written to {path}", soft_wrap=True)
        if self._left_out:
            ERR.print(f"it shows the first {shown} of {shown + self._left_out} answers, as many as a page holds")

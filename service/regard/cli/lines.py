"""Lines of a file or of stdin, and their answers in the same order, which those of files come in as well."""

from __future__ import annotations

import codecs
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

from regard.cli.screen import refuse

R = TypeVar("R")
S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Line:
    """One line, counted from 1. `problem` says why its text can't be sent; a blank one isn't either."""

    number: int
    text: str
    problem: str = ""

    @property
    def sent(self) -> str | None:
        """What is for the server to answer, if anything is."""
        return None if self.problem or not self.text.strip() else self.text


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines that are read as they are iterated over; `total` is None where only the end can tell."""

    name: str
    total: int | None
    _opened: BinaryIO

    def __iter__(self) -> Iterator[Line]:
        for number, line in enumerate(self._opened, start=1):
            content = line.rstrip(b"\r\n")
            if number == 1:
                content = content.removeprefix(codecs.BOM_UTF8)
            try:
                yield Line(number, content.decode())
            except UnicodeDecodeError as error:
                problem = f"not UTF-8 at byte {error.start}: convert it, for example with `iconv -t utf-8`"
                yield Line(number, content.decode(errors="replace"), problem)


@contextmanager
def open_lines(file: Path | None) -> Iterator[Lines]:
    """Open `file`, or stdin for None and `-`. A file that can't be read ends the command."""
    if file is None or str(file) == "-":
        yield Lines("stdin", _count(sys.stdin.buffer), sys.stdin.buffer)
        return
    try:
        opened = file.open("rb")
    except OSError as error:
        refuse(f"can't read {file}: {error.strerror}")
    with opened:
        yield Lines(str(file), _count(opened), opened)


def answered(
    given: Iterable[T], sent: Callable[[T], S | None], answer_each: Callable[[Iterable[S]], Iterator[R]]
) -> Iterator[tuple[T, R | None]]:
    """Yield every line or file in order, with its answer if something of it was `sent`."""
    waiting: deque[tuple[T, bool]] = deque()

    def contents() -> Iterator[S]:
        for one in given:
            content = sent(one)
            waiting.append((one, content is not None))
            if content is not None:
                yield content

    for answer in answer_each(contents()):
        while not waiting[0][1]:
            yield waiting.popleft()[0], None
        yield waiting.popleft()[0], answer
    for one, _ in waiting:
        yield one, None


def _count(opened: BinaryIO) -> int | None:
    """Count the lines ahead, where it is possible to come back to them."""
    if not opened.seekable():
        return None
    start = opened.tell()
    total = sum(1 for _ in opened)
    opened.seek(start)
    return total

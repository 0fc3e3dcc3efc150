"""Lines of a file or of stdin, and their answers in the same order."""

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


@dataclass(frozen=True, slots=True)
class Line:
    """One line, counted from 1. `problem` says why its text can't be sent; a blank one isn't either."""

    number: int
    text: str
    problem: str = ""

    @property
    def is_sendable(self) -> bool:
        """Whether the line is for the server to answer."""
        return not self.problem and bool(self.text.strip())


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
    lines: Iterable[Line], answer_each: Callable[[Iterable[str]], Iterator[R]]
) -> Iterator[tuple[Line, R | None]]:
    """Yield every line in order, with its answer if it was one to send."""
    waiting: deque[Line] = deque()

    def texts() -> Iterator[str]:
        for line in lines:
            waiting.append(line)
            if line.is_sendable:
                yield line.text

    for answer in answer_each(texts()):
        while not waiting[0].is_sendable:
            yield waiting.popleft(), None
        yield waiting.popleft(), answer
    for line in waiting:
        yield line, None


def _count(opened: BinaryIO) -> int | None:
    """Count the lines ahead, where it is possible to come back to them."""
    if not opened.seekable():
        return None
    start = opened.tell()
    total = sum(1 for _ in opened)
    opened.seek(start)
    return total

"""Answering a file's lines: results on stdout in the lines' order, failures on stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import typer

from regard.cli.lines import Line, answered, open_lines
from regard.cli.records import answer_record, print_record
from regard.cli.screen import error, in_words, progress
from regard.client import Failure

R = TypeVar("R")
_INVALID_ARGUMENT = 3


def answer_lines(
    file: Path | None,
    answer_each: Callable[[Iterable[str]], Iterator[R | Failure]],
    show: Callable[[R], None],
    *,
    as_json: bool,
) -> None:
    """Answer each line of `file` (None is stdin), with `show` or as a record.

    A blank line is answered by a blank line or `null`, a failed one by a blank line or its failure,
    so that answers stand at the numbers of their lines. Ends the command with 1 if any failed.
    """
    failures = 0
    with open_lines(file) as lines, progress(lines.name, lines.total) as advance:
        for line, answer in answered(lines, answer_each):
            outcome = _problem_of(line) or answer
            if isinstance(outcome, Failure):
                failures += 1
                error(f"line {line.number}: {in_words(outcome.message, outcome.field)} ({outcome.code_name})")
            _print(line, outcome, show, as_json=as_json)
            advance()
    if failures:
        raise typer.Exit(1)


def _problem_of(line: Line) -> Failure | None:
    return Failure(code=_INVALID_ARGUMENT, message=line.problem) if line.problem else None


def _print(line: Line, outcome: R | Failure | None, show: Callable[[R], None], *, as_json: bool) -> None:
    if as_json:
        print_record(None if outcome is None else answer_record(line.text, outcome))
    elif outcome is None or isinstance(outcome, Failure):
        print(flush=True)
    else:
        show(outcome)

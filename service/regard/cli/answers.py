"""Answering lines or files: results on stdout in the order of what was given, failures on stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import typer

from regard.cli.files import File
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
    problem_of: Callable[[str], str] = lambda text: "",
    record_of: Callable[[str, object], dict[str, Any]] = answer_record,
) -> None:
    """Answer each line of `file` (None is stdin), with `show` or as a record.

    A blank line is answered by a blank line or `null`, a failed one by a blank line or its failure,
    so that answers stand at the numbers of their lines. A line fails unsent if `problem_of` its text says
    why it can't be sent. Ends the command with 1 if any failed.
    """
    failures = 0
    with open_lines(file) as lines, progress(lines.name, lines.total) as advance:
        checked = (replace(line, problem=problem_of(line.text)) if line.sent else line for line in lines)
        for line, answer in answered(checked, lambda line: line.sent, answer_each):
            outcome = _failure_of(line) or answer
            if isinstance(outcome, Failure):
                failures += 1
                _tell(f"line {line.number}", outcome)
            if as_json:
                print_record(None if outcome is None else record_of(line.text, outcome))
            elif outcome is None or isinstance(outcome, Failure):
                print(flush=True)
            else:
                show(outcome)
            advance()
    if failures:
        raise typer.Exit(1)


def answer_files(
    paths: Sequence[Path],
    what: str,
    answer_each: Callable[[Iterable[bytes]], Iterator[R | Failure]],
    show: Callable[[R, str, bytes], None],
    *,
    as_json: bool,
) -> None:
    """Answer every file that can be read, with `show` or as a record; ends the command with 1 if any failed.

    `show` is given the file's name, empty for one alone, and its bytes. `what` the files are is the progress bar's.
    """
    failures = 0
    with progress(what, len(paths)) as advance:
        for file, answer in answered(map(File.read, paths), lambda file: file.content, answer_each):
            outcome = _failure_of(file) or answer
            if isinstance(outcome, Failure):
                failures += 1
                _tell(str(file.path), outcome)
            if as_json:
                print_record(answer_record(str(file.path), outcome))
            elif file.content is not None and outcome is not None and not isinstance(outcome, Failure):
                show(outcome, str(file.path) if len(paths) > 1 else "", file.content)
            advance()
    if failures:
        raise typer.Exit(1)


def _failure_of(given: Line | File) -> Failure | None:
    return Failure(code=_INVALID_ARGUMENT, message=given.problem) if given.problem else None


def _tell(where: str, failure: Failure) -> None:
    error(f"{where}: {in_words(failure.message, failure.field)} ({failure.code_name})")

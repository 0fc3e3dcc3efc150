"""A glossary's file: a source term, a tab, and the term that is expected in its place, on each line."""

from __future__ import annotations

from pathlib import Path

from regard.cli.lines import open_lines
from regard.cli.screen import refuse


def read_glossary(file: Path) -> list[tuple[str, str]]:
    """Read the entries of `file`; blank lines are passed over. A line that is no entry ends the command."""
    entries = []
    with open_lines(file) as lines:
        for line in lines:
            if not line.text.strip():
                continue
            terms = [term.strip() for term in line.text.split("\t")]
            if line.problem or len(terms) != 2 or not all(terms):
                problem = line.problem or "not a source term, a tab and a target term"
                refuse(f"{file}, line {line.number}: {problem}")
            entries.append((terms[0], terms[1]))
    if not entries:
        refuse(f"{file} holds no terms: give a source term, a tab and a target term on each line")
    return entries

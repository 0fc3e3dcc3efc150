"""Sentence pairs, the words of each sentence, and links that people made."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from regard_export.errors import ExportError

# As the service sees words: letters and digits with inner apostrophes and hyphens, or one other character.
_WORD = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]")
_TOKENS = re.compile(r"\S+")
_LINK = re.compile(r"(\d+)([-p?])(\d+)")
_SEPARATOR = "|||"

Link = tuple[int, int]
"""The places of a source word and a target word."""


@dataclass(frozen=True)
class Sentence:
    """A text and the spans of its words, in code points."""

    text: str
    spans: tuple[tuple[int, int], ...]

    @property
    def words(self) -> list[str]:
        """The words, in order."""
        return [self.text[start:end] for start, end in self.spans]

    def joined(self, other: Sentence) -> Sentence:
        """Return both as one, with a space between."""
        first = len(self.text) + 1
        moved = tuple((start + first, end + first) for start, end in other.spans)
        return Sentence(f"{self.text} {other.text}", self.spans + moved)


Pair = tuple[Sentence, Sentence]


@dataclass(frozen=True)
class Gold:
    """What people linked in one pair: surely, and surely or possibly (Och & Ney 2003, section 5)."""

    sure: frozenset[Link]
    possible: frozenset[Link]


def read_bitext(file: Path) -> list[Pair]:
    """Read sentence pairs, one a line: `source<TAB>target`, or `tokens ||| tokens` for words parted by spaces.

    Raises `ExportError`, naming the line, for one that is neither.
    """
    pairs = []
    for number, line in _lines(file):
        pattern = _TOKENS if _SEPARATOR in line else _WORD
        sides = [" ".join(side.split()) for side in line.split(_SEPARATOR if _SEPARATOR in line else "\t")[:2]]
        if len(sides) != 2 or not all(sides):
            raise ExportError(f"{file.name}, line {number}: not 'source<TAB>target', nor 'source ||| target'")
        source, target = (Sentence(side, tuple(found.span() for found in pattern.finditer(side))) for side in sides)
        pairs.append((source, target))
    if not pairs:
        raise ExportError(f"{file.name} holds no sentence pairs")
    return pairs


def read_gold(file: Path, *, one_indexed: bool) -> list[Gold]:
    """Read links, a line a pair: `2-3` is a sure one of source word 2 and target word 3, `2p3` a possible one."""
    first = 1 if one_indexed else 0
    gold = []
    for number, line in _lines(file):
        links: dict[str, set[Link]] = {"-": set(), "p": set()}
        for item in line.split():
            found = _LINK.fullmatch(item)
            if found is None or int(found[1]) < first or int(found[3]) < first:
                raise ExportError(f"{file.name}, line {number}: {item!r} is no link such as 2-3 or 2p3 from {first} on")
            links["-" if found[2] == "-" else "p"].add((int(found[1]) - first, int(found[3]) - first))
        gold.append(Gold(frozenset(links["-"]), frozenset(links["-"] | links["p"])))
    return gold


def error_rate(found: Iterable[set[Link]], gold: Iterable[Gold]) -> float:
    """Return the alignment error rate, from 0 to 1: 1 - (|A∩S| + |A∩P|) / (|A| + |S|), over all pairs at once."""
    right = total = 0
    for links, known in zip(found, gold, strict=True):
        right += len(links & known.sure) + len(links & known.possible)
        total += len(links) + len(known.sure)
    return 1 - right / total if total else 0.0


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """Yield what stands between line feeds: a corpus has other separators, such as U+2028, within its texts."""
    try:
        lines = file.read_bytes().decode("utf-8-sig").split("\n")
    except OSError as error:
        raise ExportError(f"{file} can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ExportError(f"{file} can't be read as UTF-8 text") from error
    if not lines[-1]:
        lines.pop()
    for number, line in enumerate(lines, start=1):
        yield number, line.rstrip("\r")

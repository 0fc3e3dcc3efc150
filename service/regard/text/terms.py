"""Terms: expressions that are looked up in texts, whatever their case, white space or kind of apostrophe."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field

from tokenizers import Regex
from tokenizers.pre_tokenizers import Split

from regard.text.words import SPACED, UNSPACED

# As words, but apart at apostrophes and hyphens: "orange" is found in "l'orange".
_PART = Split(Regex(rf"(?=[{UNSPACED}])\X|{SPACED}|(?!\s)\X"), "isolated")
_APOSTROPHES = dict.fromkeys((0x2018, 0x2019, 0x02BC), "'")
_ANY_ENDING = "*"


@dataclass(frozen=True, slots=True)
class Part:
    """A run of letters and digits of a text, or one other character, as it is compared, and where it stands."""

    key: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Term:
    """A term as it's spelled, and its parts: the key of each, and whether a part that only begins with it will do."""

    text: str = field(compare=False)
    parts: tuple[tuple[str, bool], ...]

    def may_stand_among(self, keys: Set[str]) -> bool:
        """Tell whether every part that must be there as a whole is one of `keys`: if not, the term stands nowhere."""
        return bool(self.parts) and all(begins or key in keys for key, begins in self.parts)

    def places(self, parts: Sequence[Part]) -> Iterator[tuple[int, int]]:
        """Yield where the term stands in a text of `parts`: start and end, in code points, without overlap."""
        first = 0
        while self.parts and first + len(self.parts) <= len(parts):
            found = parts[first : first + len(self.parts)]
            if all(map(_fits, self.parts, found)):
                yield found[0].start, found[-1].end
                first += len(found)
            else:
                first += 1


def read_term(text: str) -> Term:
    """Return the term that `text` spells: a word that ends in * stands for every word that begins with it.

    A term of nothing but white space has no parts, and stands nowhere.
    """
    found: list[tuple[str, bool]] = []
    end = 0
    for part in parts_of(text):
        if part.key == _ANY_ENDING and found and part.start == end and found[-1][0][-1].isalnum():
            found[-1] = found[-1][0], True
        else:
            found.append((part.key, False))
        end = part.end
    return Term(text, tuple(found))


def parts_of(text: str) -> list[Part]:
    """Return the parts of a text, in order, compared without case, compatibility forms and kinds of apostrophe."""
    return [Part(_key(piece), *span) for piece, span in _PART.pre_tokenize_str(text) if not piece.isspace()]


def _key(piece: str) -> str:
    return unicodedata.normalize("NFKC", piece).casefold().translate(_APOSTROPHES)


def _fits(wanted: tuple[str, bool], part: Part) -> bool:
    key, begins = wanted
    return part.key.startswith(key) if begins else part.key == key

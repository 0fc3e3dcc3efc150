"""A glossary's terms in a translation: whether what is linked to a source term is what was expected."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from regard.attention.alignment import Alignment
from regard.text.segment import Segment
from regard.text.terms import Term, parts_of

Span = tuple[int, int]


class Verdict(StrEnum):
    """What became of a source term."""

    KEPT = "kept"
    UNLINKED = "unlinked"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Match:
    """One occurrence of a source term: its `source` span, and its `target` span if it's not missing.

    `entry` is the place of the glossary's entry that was found, or else of the term's first, and `expected` its
    target term; `linked_words` are the target words that are linked to the occurrence.
    """

    entry: int
    expected: str
    verdict: Verdict
    source: Span
    target: Span | None
    linked_words: tuple[Segment, ...]


class Glossary:
    """Source terms, and the target terms that are expected in their places."""

    def __init__(self, entries: Sequence[tuple[Term, Term]]) -> None:
        self._targets = [target for _, target in entries]
        self._entries: dict[Term, list[int]] = {}
        """The places of each source term's entries, which are alternatives."""
        for place, (source, _) in enumerate(entries):
            self._entries.setdefault(source, []).append(place)

    def check(self, source: str, target: str, alignment: Alignment) -> list[Match]:
        """Return what became of each occurrence of a source term, in order of where they start.

        A target term that a link joins with the occurrence comes before one that merely stands
        somewhere, and among these the alternative that was given first.
        """
        sources, targets = parts_of(source), parts_of(target)
        keys = {part.key for part in sources}

        @cache
        def standing(term: Term) -> list[Span]:
            return list(term.places(targets))

        matches = [
            self._match(entries, span, standing, alignment)
            for term, entries in self._entries.items()
            if term.may_stand_among(keys)
            for span in term.places(sources)
        ]
        return sorted(matches, key=lambda match: match.source)

    def _match(
        self, entries: Sequence[int], span: Span, standing: Callable[[Term], list[Span]], alignment: Alignment
    ) -> Match:
        linked = tuple(_linked(span, alignment))
        somewhere: tuple[int, Span] | None = None
        for entry in entries:
            for place in standing(self._targets[entry]):
                if any(_overlap(place, (word.start, word.end)) for word in linked):
                    return self._told(entry, Verdict.KEPT, span, place, linked)
                somewhere = somewhere or (entry, place)
        if somewhere is not None:
            return self._told(somewhere[0], Verdict.UNLINKED, span, somewhere[1], linked)
        return self._told(entries[0], Verdict.MISSING, span, None, linked)

    def _told(self, entry: int, verdict: Verdict, span: Span, place: Span | None, linked: tuple[Segment, ...]) -> Match:
        return Match(entry, self._targets[entry].text, verdict, span, place, linked)


def _linked(span: Span, alignment: Alignment) -> Iterator[Segment]:
    """Yield the target words that are linked to a word of the source that `span` touches, in order."""
    touched = {place for place, word in enumerate(alignment.source_words) if _overlap(span, (word.start, word.end))}
    for place in sorted({link.target for link in alignment.links if link.source in touched}):
        yield alignment.target_words[place]


def _overlap(one: Span, other: Span) -> bool:
    return one[0] < other[1] and other[0] < one[1]

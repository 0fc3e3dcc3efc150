"""Which words go together, and what that tells of a translation."""

from __future__ import annotations

from dataclasses import dataclass

from regard.answers.attention import Segment


@dataclass(frozen=True, slots=True)
class Link:
    """A source word and a target word that go together, and the link's weight, from 0 to 1."""

    source: Segment
    target: Segment
    weight: float

    def __str__(self) -> str:
        return f"{self.source.text} → {self.target.text} ({self.weight:.2f})"


@dataclass(frozen=True, slots=True)
class Alignment:
    """Which words of the source translate to which of the target; a word may have no link, one, or several.

    `source_coverage` is how much attention all target words paid to each source word, 1 at most;
    `target_confidence` each target word's probability, given all before it.
    """

    source_words: tuple[Segment, ...]
    target_words: tuple[Segment, ...]
    links: tuple[Link, ...]
    source_coverage: tuple[float, ...] = ()
    target_confidence: tuple[float, ...] = ()

    def __str__(self) -> str:
        return ", ".join(map(str, self.links))

    def targets_of(self, word: Segment) -> tuple[Segment, ...]:
        """Return the target words that a source word is linked to, in order."""
        return tuple(link.target for link in self.links if link.source == word)

    @property
    def pharaoh(self) -> str:
        """The links as `0-0 1-2`: the places of source and target word, as fast_align and Marian write them."""
        sources = {word.start: place for place, word in enumerate(self.source_words)}
        targets = {word.start: place for place, word in enumerate(self.target_words)}
        return " ".join(f"{sources[link.source.start]}-{targets[link.target.start]}" for link in self.links)


@dataclass(frozen=True, slots=True)
class Quality:
    """How good a translation seems, from 0 to 1, and why.

    `warnings` holds `under_translation`, `hallucination` and `repetition`, or none of them;
    `uncovered_words` are source words that the translation seems to leave out.
    """

    score: float
    warnings: tuple[str, ...]
    uncovered_words: tuple[Segment, ...]
    coverage: float
    confidence: float
    repetition: float
    attention_entropy: float
    attention_sink_share: float
    attention_repetition: float

    def __str__(self) -> str:
        warnings = ", ".join(warning.replace("_", "-") for warning in self.warnings) or "no warnings"
        words = ", ".join(word.text for word in self.uncovered_words)
        return f"{self.score:.2f}, {warnings}" + (f"; perhaps left out: {words}" if words else "")


@dataclass(frozen=True, slots=True)
class GlossarySpan:
    """A part of a text, in code points; `end` is exclusive."""

    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class GlossaryMatch:
    """One occurrence of a source term, and what the translation has in its place.

    `verdict` is `kept` if the `expected` term is linked to it, `unlinked` if that merely stands in the
    translation, and `missing` if it doesn't; `target` is where it stands. `entry` counts those that were given.
    """

    entry: int
    expected: str
    verdict: str
    source: GlossarySpan
    target: GlossarySpan | None
    linked_words: tuple[GlossarySpan, ...]

    def __str__(self) -> str:
        found = self.target.text if self.target else " ".join(word.text for word in self.linked_words) or "nothing"
        asked = "" if self.verdict == "kept" else f" (expected: {self.expected})"
        return f"{self.source.text} → {found}: {self.verdict}{asked}"

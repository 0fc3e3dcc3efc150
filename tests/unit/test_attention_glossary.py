"""What became of a glossary's terms, by links that are given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from regard.attention.alignment import Alignment, Link
from regard.attention.glossary import Glossary, Match, Verdict
from regard.text.segment import Segment
from regard.text.terms import Part, Term, parts_of, read_term


def aligned(source: str, target: str, links: str) -> Alignment:
    """Return the alignment that `links` says, as in 0-0 1-2, of texts whose words are parted by spaces."""
    sides = [
        [Segment(part.key, part.start, part.end, False, None) for part in parts_of(text)] for text in (source, target)
    ]
    pairs = [link.split("-") for link in links.split()]
    found = tuple(Link(int(left), int(right), 1.0) for left, right in pairs)
    return Alignment(tuple(sides[0]), tuple(sides[1]), found, (1.0,) * len(sides[0]), (1.0,) * len(sides[1]))


def check(entries: dict[str, str] | list[tuple[str, str]], source: str, target: str, links: str) -> list[Match]:
    """Return the matches of a glossary."""
    pairs = entries.items() if isinstance(entries, dict) else entries
    glossary = Glossary([(read_term(one), read_term(other)) for one, other in pairs])
    return glossary.check(source, target, aligned(source, target, links))


def test_a_term_is_kept_where_a_link_leads_to_what_is_expected() -> None:
    """Both spans are those of the texts, and the words that are linked are told."""
    source, target = "a red car stops", "une voiture rouge"

    (match,) = check({"Car": "VOITURE"}, source, target, "0-0 1-2 2-1")

    assert (match.verdict, match.entry, match.expected) == (Verdict.KEPT, 0, "VOITURE")
    assert source[slice(*match.source)] == "car"
    assert match.target is not None and target[slice(*match.target)] == "voiture"
    assert [word.text for word in match.linked_words] == ["voiture"]


def test_a_term_that_stands_elsewhere_is_unlinked_and_one_that_does_not_is_missing() -> None:
    """What is linked in its place is told either way."""
    unlinked, missing = check({"car": "auto", "red": "vert"}, "car red", "rouge auto", "0-0")[0:2]

    assert (unlinked.verdict, unlinked.target) == (Verdict.UNLINKED, (6, 10))
    assert [word.text for word in unlinked.linked_words] == ["rouge"]
    assert (missing.verdict, missing.target, missing.linked_words) == (Verdict.MISSING, None, ())


def test_each_occurrence_is_judged_by_its_own_links() -> None:
    """Of two, one is kept and one isn't; they come in the order of the text."""
    matches = check({"car": "auto"}, "car and car", "auto et voiture", "0-0 1-1 2-2")

    assert [(match.source, match.verdict) for match in matches] == [
        ((0, 3), Verdict.KEPT),
        ((8, 11), Verdict.UNLINKED),
    ]


def test_any_of_several_expected_terms_will_do() -> None:
    """Entries of one source term are alternatives; a linked one comes before one that merely stands there."""
    entries = [("car", "auto"), ("CAR", "voiture*"), ("bus", "bus")]

    (match,) = check(entries, "my car", "auto de voitures", "1-2")

    assert (match.entry, match.verdict, match.target) == (1, Verdict.KEPT, (8, 16))


def test_a_translation_is_searched_once_for_each_expected_term(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often their source term occurs."""
    searched: list[str] = []
    places = Term.places

    def counted(term: Term, parts: Sequence[Part]) -> Iterator[tuple[int, int]]:
        searched.append(term.text)
        return places(term, parts)

    monkeypatch.setattr(Term, "places", counted)

    matches = check([("car", "auto"), ("car", "voiture")], "car car car", "voiture", "0-0")

    assert [match.verdict for match in matches] == [Verdict.KEPT, Verdict.UNLINKED, Verdict.UNLINKED]
    assert sorted(searched) == ["auto", "car", "voiture"]


def test_a_term_of_several_words_is_kept_by_a_link_of_one_of_them() -> None:
    """Articles and prepositions inside a term often have no link."""
    (match,) = check({"potato": "pomme de terre"}, "a potato", "une pomme de terre", "1-1")

    assert (match.verdict, match.target) == (Verdict.KEPT, (4, 18))

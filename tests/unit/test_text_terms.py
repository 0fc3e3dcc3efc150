"""Terms in texts."""

from __future__ import annotations

import pytest

from regard.text.terms import parts_of, read_term


@pytest.mark.parametrize(
    ("term", "text", "found"),
    [
        ("orange", "L'orange et l’ORANGE, pas oranges.", ["orange", "ORANGE"]),
        ("orange*", "Oranges, orangeade, or Orange?", ["Oranges", "orangeade", "Orange"]),
        ("aujourd'hui", "Aujourd’hui.", ["Aujourd’hui"]),
        ("pomme de terre", "des Pommes de terre, une pomme  de\nterre", ["pomme  de\nterre"]),
        ("pomme* de terre", "des Pommes de terre, une pomme de terre", ["Pommes de terre", "pomme de terre"]),
        ("C++", "C++ is not C+, c++!", ["C++", "c++"]),
        ("well-known", "a WELL-known fact", ["WELL-known"]),
        ("café", "un cafe\u0301 et un \ufb01lm", ["cafe\u0301"]),
        ("film", "un \ufb01lm", ["\ufb01lm"]),
        ("strasse", "Die Straße", ["Straße"]),
        ("山", "富士山と山", ["山", "山"]),
        ("a a", "a a a a a", ["a a", "a a"]),
        ("*", "2 * 3", ["*"]),
        ("2 *", "2 * 3 23", ["2 *"]),
        (" ", "a b", []),
        ("absent", "", []),
    ],
)
def test_terms_are_found_as_whole_words(term: str, text: str, found: list[str]) -> None:
    """Without regard to case, forms and apostrophes; with a star, whatever the ending; in the text's own spelling."""
    assert [text[start:end] for start, end in read_term(term).places(parts_of(text))] == found


def test_a_term_whose_words_are_not_there_is_not_looked_for() -> None:
    """The quick look never rules out what is there."""
    keys = {part.key for part in parts_of("Une belle orange")}

    assert read_term("belle orange").may_stand_among(keys)
    assert read_term("or*").may_stand_among(keys)
    assert not read_term("belle pomme").may_stand_among(keys)

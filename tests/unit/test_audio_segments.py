"""Segments of a text of speech, between the times that the model wrote."""

from __future__ import annotations

import pytest

from regard.audio.segments import SpokenSegment, Times, cut

TIMES = Times(first_token_id=100, seconds_per_token=0.5)
"""Token 100 is 0 s, 101 is 0.5 s."""

CASES: dict[str, tuple[list[int], list[tuple[float, float, str]]]] = {
    "one segment": ([100, 1, 2, 104], [(10, 12, "ab")]),
    "two, one right behind the other": ([100, 1, 102, 102, 2, 106], [(10, 11, "a"), (11, 13, "b")]),
    "two with a pause between them": ([101, 1, 103, 105, 2, 3, 107], [(10.5, 11.5, "a"), (12.5, 13.5, "bc")]),
    "without an end": ([100, 1, 104, 104, 2], [(10, 12, "a"), (12, 25, "b")]),
    "without times": ([1, 2, 3], [(10, 25, "abc")]),
    "times alone": ([100, 103], []),
    "nothing": ([], []),
    "with special tokens": ([0, 100, 1, 102, 0], [(10, 11, "a")]),
}


@pytest.mark.parametrize("name", CASES)
def test_a_text_is_cut_at_its_times(name: str) -> None:
    """A window from 10 s, whose sound ends at 25 s; tokens 1, 2 and 3 are the letters, 0 is special."""
    token_ids, expected = CASES[name]
    text, ends = "", []
    for token_id in token_ids:
        text += " abc"[token_id] if 1 <= token_id <= 3 else ""
        ends.append(len(text))
    assert cut(token_ids, ends, text, TIMES, (10, 25)) == [SpokenSegment(*one) for one in expected]


def test_what_a_stop_string_cut_off_is_in_no_segment() -> None:
    """The text ends before its tokens do."""
    assert cut([100, 1, 2, 102, 102, 3, 104], [0, 1, 2, 2, 2, 3, 3], "a", TIMES, (0, 30)) == [SpokenSegment(0, 1, "a")]

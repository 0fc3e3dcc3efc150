"""Alternatives: what is told to a request that asks for too much is what it could have."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import pytest

from regard.attention.axes import Axis, AxisName, Passage, label
from regard.attention.budget import alternatives
from regard.attention.encoding import Encoding
from regard.attention.maps import size_of
from regard.attention.selection import AttentionChoice, AttentionKind, Granularity, Reduction, Selection, select
from regard.errors import InvalidInputError
from regard.manifest import Manifest, Task
from regard.rpc.attention import AttentionOrder
from regard.rpc.wire import Weights
from regard.text.segment import Segment

from .packages import manifest_of

TRANSLATOR = manifest_of(Task.TRANSLATION)
WORDS = 8
TEXT = " ".join(["abcd"] * WORDS)
PASSAGE = Passage(TEXT, [Segment("ab", at, at + 2, False, 1) for at in range(0, len(TEXT), 5) for at in (at, at + 2)])
"""Words of two tokens each."""
MUCH = 1 << 20
START = Segment("<s>", 0, 0, True, 0)


def told(choice: AttentionChoice, max_bytes: int, manifest: Manifest = TRANSLATOR) -> dict[str, int]:
    """Return the alternatives to a choice, by their options."""
    selection = select(choice, manifest)

    def axes(granularity: Granularity) -> Mapping[AxisName, Axis]:
        return label(replace(selection, granularity=granularity), PASSAGE, PASSAGE, START)

    return {one.options: one.size for one in alternatives(selection, axes, max_bytes)}


def asked_for(choice: AttentionChoice, options: str) -> AttentionChoice:
    """Return the choice with options as the message words them."""
    for option in options.split(" with "):
        name, value = option.split(" ")
        match name:
            case "top_k":
                choice = replace(choice, top_k=int(value))
            case "layers":
                choice = replace(choice, layers=tuple(map(int, re.findall(r"\d+", value))))
            case "granularity":
                choice = replace(choice, granularity=Granularity(value))
            case "reduction":
                choice = replace(choice, reduction=Reduction(value))
            case "encoding":
                choice = replace(choice, encoding=Encoding(value))
    return choice


def size(selection: Selection) -> int:
    """Return what a selection comes to."""
    return size_of(selection, label(selection, PASSAGE, PASSAGE, START))


CHOICES = [
    AttentionChoice(),
    AttentionChoice(kinds=(AttentionKind.SELF, AttentionKind.CROSS)),
    AttentionChoice(reduction=Reduction.MAX, encoding=Encoding.FLOAT16),
    AttentionChoice(reduction=Reduction.ROLLOUT, layers=(0, 1)),
    AttentionChoice(granularity=Granularity.WORD, encoding=Encoding.UINT8),
    AttentionChoice(top_k=9),
]


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("share", [0.9, 0.5, 0.2, 0.1])
def test_what_is_told_would_fit(choice: AttentionChoice, share: float) -> None:
    """Asked for as it is worded, each alternative comes to the bytes that it says, which are within the budget."""
    whole = size(select(choice, TRANSLATOR))
    max_bytes = int(share * whole)

    found = told(choice, max_bytes)

    assert found
    for options, promised in found.items():
        assert promised <= max_bytes < whole
        assert size(select(asked_for(choice, options), TRANSLATOR)) == promised


def test_one_option_is_told_by_itself_where_that_is_enough() -> None:
    """Half of the bytes are enough for half of the bits, for means, for words, and for a layer of two."""
    whole = size(select(AttentionChoice(), TRANSLATOR))

    found = told(AttentionChoice(), whole // 2)

    assert whole == 4 * (4 + 2) * 16 * 16
    assert found == {
        "top_k 6": (4 + 2) * 16 * 6 * (4 + 1),
        "layers [1]": 4 * 2 * 16 * 16,
        "granularity word": 4 * (4 + 2) * 8 * 8,
        "reduction mean": 4 * 2 * 16 * 16,
        "encoding float16": whole // 2,
        "encoding uint8": (4 + 2) * 16 * (16 + 4),
    }


def test_several_options_are_told_together_where_none_is_enough() -> None:
    """What loses least goes first, until the rest fits."""
    assert told(AttentionChoice(), 300) == {"encoding uint8 with reduction mean with granularity word": 2 * 8 * (8 + 4)}


def test_nothing_is_told_where_nothing_fits() -> None:
    """A single weight of every query is too much already."""
    assert told(AttentionChoice(), 10) == {}


def test_the_refusal_has_the_size_and_what_would_fit() -> None:
    """The message names the field, both figures and every way out."""
    order = AttentionOrder(select(AttentionChoice(layers=(1,)), TRANSLATOR), 1000, MUCH, Weights())

    with pytest.raises(InvalidInputError) as refused:
        order.fill(None, {}, PASSAGE, "texts[3]", target=PASSAGE, start=START)  # type: ignore[arg-type]

    assert refused.value.field == "texts[3]"
    assert refused.value.message == (
        "texts[3]: its attention comes to 2.0 KiB, and it may have 1000 bytes of the request's; ask for encoding "
        "uint8 (640 bytes), or granularity word (512 bytes), or top_k 6 (960 bytes), shorten the input, or send fewer "
        "inputs at once"
    )


def test_before_the_output_is_known_the_figures_are_the_least() -> None:
    """What is over the budget with an output of one token is refused at once, and says so; self-attention is exact."""
    cross = AttentionOrder(select(AttentionChoice(), TRANSLATOR), 200, MUCH, Weights())
    own = AttentionOrder(select(AttentionChoice(), manifest_of(Task.CLASSIFICATION)), 2000, MUCH, Weights())

    with pytest.raises(
        InvalidInputError, match=r"comes to at least 384 bytes.*encoding float16 \(at least 192 bytes\)"
    ):
        cross.check(PASSAGE, "texts[0]")
    with pytest.raises(InvalidInputError, match=r"comes to 4\.0 KiB, .*encoding uint8 \(1\.2 KiB\)"):
        own.check(PASSAGE, "inputs[0]")


@pytest.mark.parametrize(
    ("choice", "read"),
    [
        (AttentionChoice(layers=(1,), reduction=Reduction.MEAN, top_k=1), 2 * 16 * 16),
        (AttentionChoice(reduction=Reduction.ROLLOUT), (3 * 4 + 2 * (4 + 2)) * 16 * 16),
    ],
)
def test_what_a_small_map_is_made_of_has_a_budget_too(choice: AttentionChoice, read: int) -> None:
    """All heads of every layer that goes in are read, however little of it is sent; the refusal says how much."""
    selection = select(choice, TRANSLATOR)

    with pytest.raises(InvalidInputError, match=rf"texts\[0\]: its attention is made of {read * 4 / 1024:.1f} KiB"):
        AttentionOrder(selection, MUCH, 4 * read - 1, Weights()).fill(
            None,  # type: ignore[arg-type]
            {},
            PASSAGE,
            "texts[0]",
            target=PASSAGE,
            start=START,
        )


def test_an_encoder_is_known_to_be_too_much_before_it_runs() -> None:
    """The layers that a rollout across goes through are counted with the source alone."""
    order = AttentionOrder(
        select(AttentionChoice(reduction=Reduction.ROLLOUT), TRANSLATOR), MUCH, 4 * 3 * 4 * 16 * 16, Weights()
    )

    with pytest.raises(InvalidInputError, match="with all heads of every layer"):
        order.check(PASSAGE, "texts[0]")

from __future__ import annotations

import io
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from rich.cells import cell_len
from rich.console import Console

from regard.answers import Attention, AttentionMap, AttentionRow, Segment, TokenDelta
from regard.cli.drawing import AlignmentGrid, Bars, HighlightedText, Label
from regard.cli.pictures import HeatStrip
from regard.cli.views import TokenLines, highlighted_view

from .conftest import png

SENTENCE = "They were stuck in the elevator for four hours because the door was broken ."
SOURCE = list(SENTENCE.split())


def drawn(renderable, width=80, **options) -> str:
    """Return what a console of `width` columns shows."""
    console = Console(file=io.StringIO(), width=width, **options)
    console.print(renderable)
    return console.file.getvalue()


def grid(rows, columns, weights=None) -> AlignmentGrid:
    """Return a grid of these words, with a diagonal where no weights are given."""
    if weights is None:
        weights = np.eye(len(rows), len(columns), dtype=np.float32) * 0.9 + 0.01
    return AlignmentGrid([Label(row) for row in rows], [Label(column) for column in columns], weights)


def test_a_narrow_grid_has_its_words_above():
    """Where columns fit, each source word stands above its column and the best of each row shows its percentage."""
    header, first, second = drawn(grid(["Ils", "poussent"], ["They", "grow"])).splitlines()
    assert header.split() == ["They", "grow"]
    assert first.split()[0] == "Ils"
    assert header.index("They") <= first.index("91") < header.index("grow") <= second.index("91")


def test_a_wide_grid_stands_below_stairs():
    """Where columns don't fit, the words go down in steps, each with a line to its column, all within 80 columns."""
    lines = drawn(grid(SOURCE, SOURCE)).splitlines()
    assert [line.split()[-1] for line in lines[: len(SOURCE)]] == SOURCE
    assert len(lines) == 2 * len(SOURCE)
    for step, line in enumerate(lines[: len(SOURCE)]):
        assert line.count("│") == step
    assert max(map(cell_len, lines)) <= 80


@pytest.mark.parametrize("width", [20, 40, 80, 120])
@pytest.mark.parametrize("words", [1, 7, 40])
def test_no_grid_is_wider_than_the_screen(width, words):
    """Columns that don't fit follow in another grid, and each column is drawn once."""
    columns = [f"word{number}" for number in range(words)]
    lines = drawn(grid(["mot"], columns), width).splitlines()
    assert max(map(cell_len, lines)) <= width
    assert [word for line in lines for word in line.split() if word.startswith("word")] == columns


def test_without_colour_weights_are_shades():
    """Without colour a weight is one of ·░▒▓█, and there is no escape code."""
    weights = np.array([[0.0, 0.25, 0.45, 0.65, 0.81, 0.99]], dtype=np.float32)
    row = drawn(grid(["w"], list("abcdef"), weights), no_color=True, force_terminal=True).splitlines()[1]
    assert [cell[0] for cell in row.split()[1:]] == ["·", "░", "▒", "▓", "█", "█"]
    assert "\x1b[4" not in row


def test_with_colour_weights_are_backgrounds():
    """With colour every cell has a background, lighter for a larger weight."""
    text = drawn(grid(["w"], ["a", "b"]), force_terminal=True, color_system="truecolor")
    assert "48;2;238;242;176" in text
    assert "░" not in text


def test_ascii_terminals_get_ascii():
    """A terminal that knows only ASCII is sent nothing else."""
    console = Console(file=io.TextIOWrapper(io.BytesIO(), "ascii"), width=80)
    console.print(grid(["Ils"], ["They", "grow"]))
    console.print(Bars(["a"], [0.5]))
    console.file.seek(0)
    assert console.file.read().isascii()


def test_wide_characters_keep_columns_straight():
    """Words of double-width characters don't shift the columns."""
    lines = drawn(grid(["猫", "cat"], ["一匹", "の"])).splitlines()
    assert len({cell_len(line) for line in lines}) == 1


def test_a_long_word_is_cut():
    """A word that is longer than any column may be ends with an ellipsis."""
    assert "…" in drawn(grid(["x" * 60], ["y"]))


def test_an_empty_grid_is_nothing():
    """No words make no drawing and no error."""
    assert drawn(grid([], [], np.zeros((0, 0), np.float32))).strip() == ""


def test_highlighted_words_wrap_with_their_weights():
    """Words wrap at the width, and each keeps its percentage right below."""
    words = ["alpha", "beta", "gamma", "delta"]
    lines = drawn(HighlightedText([Label(word) for word in words], [0.1, 0.2, 0.3, 0.4]), 16).splitlines()
    assert [line.split() for line in lines[::2]] == [["alpha", "beta"], ["gamma", "delta"]]
    assert "10" in lines[1]
    assert "40" in lines[3]


def test_bars_are_as_long_as_their_values():
    """A bar's length is its share of the longest there may be."""
    full, half, none = drawn(Bars(["a", "b", "c"], [1.0, 0.5, 0.0])).splitlines()
    assert (full.count("█"), half.count("█"), none.count("█")) == (40, 20, 0)
    assert "50.0 %" in half


@pytest.mark.parametrize(
    ("picture", "color"),
    [
        (Image.new("RGBA", (8, 8), (255, 0, 0, 0)), (255, 255, 255)),
        (Image.new("LA", (8, 8), (0, 51)), (204, 204, 204)),
        (Image.new("I;16", (8, 8), 257 * 100), (100, 100, 100)),
        (Image.new("RGB", (8, 8), (1, 2, 3)), (1, 2, 3)),
    ],
    ids=lambda value: getattr(value, "mode", ""),
)
def test_a_picture_has_the_colours_that_the_model_saw(picture: Image.Image, color: tuple[int, int, int]):
    """What is transparent is white, as it is for the model, and 16 bits of grey are as bright as 8."""
    strip = HeatStrip(png(picture), (0, 0, 8, 8), [Label("word")], [np.ones((2, 2), np.float32)])
    shown = drawn(strip, width=15, force_terminal=True, color_system="truecolor")
    assert set(re.findall(r"38;2;(\d+);(\d+);(\d+)", shown)) == {tuple(map(str, color))}


SELF_ATTENTION = AttentionMap(
    kind="self",
    stack="encoder",
    layer=0,
    heads=(0,),
    reduction="none",
    query_axis="source",
    key_axis="source",
    queries=(Segment("they", 0, 4, False, None), Segment("grow", 5, 9, False, None)),
    keys=(Segment("they", 0, 4, False, None), Segment("grow", 5, 9, False, None)),
    weights=np.full((1, 2, 2), 0.5, np.float32),
)


def test_the_last_layer_is_that_of_each_stack_and_kind():
    """A stack of fewer layers than another, or with maps of fewer of one kind, has its last one drawn as well."""
    layers = [("encoder", "self", 3), ("decoder", "self", 2), ("decoder", "cross", 1)]
    maps = [
        replace(SELF_ATTENTION, stack=stack, kind=kind, layer=layer)
        for stack, kind, count in layers
        for layer in range(count)
    ]
    attention = Attention(granularity="word", maps=tuple(maps), package_sha256="", precision="fp32")
    shown = drawn(highlighted_view(attention, every_layer=False))
    assert [line.split(" · ")[1] for line in shown.splitlines() if " · " in line] == [
        "encoder layer 2, head 0",
        "decoder layer 1, head 0",
        "decoder layer 0, head 0",
    ]
    assert drawn(highlighted_view(attention, every_layer=True)).count(" · ") == 6


@pytest.mark.parametrize(
    ("reduction", "heads", "origin"),
    [
        ("none", (2,), "encoder layer 0, head 2"),
        ("max", (0, 2), "encoder layer 0, max of 2 heads"),
        ("rollout", (2,), "encoder layer 0, rollout of head 2"),
        ("alignment_heads", (0, 1, 2), "encoder, mean of the alignment heads"),
    ],
)
def test_a_legend_tells_what_was_made_of_which_heads(reduction: str, heads: tuple[int, ...], origin: str):
    """A rollout is no head's own map, and alignment heads are of several layers."""
    one = replace(SELF_ATTENTION, reduction=reduction, heads=heads)
    attention = Attention(granularity="word", maps=(one,), package_sha256="", precision="fp32")
    assert f" · {origin}\n" in drawn(highlighted_view(attention, every_layer=False))


def row_of(query: int, weights: list[float], key_axis: str = "source") -> AttentionRow:
    """Return a row of a stream's attention."""
    return AttentionRow(query, "cross", 1, (0,), "none", key_axis, np.array([weights], np.float32))


@pytest.mark.parametrize("late", [False, True])
def test_a_token_stands_beside_its_own_row(late: bool):
    """Also where the rows of alignment heads come with the token after, and the last two with the last."""
    rows = [row_of(0, [0.9, 0.1]), row_of(1, [0.2, 0.8])]
    settled = [(), (rows[0],), (rows[1],)] if late else [(rows[0],), (rows[1],), ()]
    source = SELF_ATTENTION.keys
    deltas = [TokenDelta(1, "Ils", 0.0, settled[0], source=source), TokenDelta(2, " poussent", 0.0, settled[1])]
    deltas.append(TokenDelta(0, "", 0.0, settled[2]))
    lines = TokenLines()
    shown = [[line.plain.split() for line in lines.add(delta)] for delta in deltas]
    first, second = ["Ils", "they", "90", "grow", "10"], ["poussent", "grow", "80", "they", "20"]
    assert shown == ([[], [first], [second]] if late else [[first], [second], []])
    assert [line.plain.split() for line in lines.finish()] == [["·"]]


def test_a_legend_without_special_tokens_names_none():
    """What stands below words of which none is special is whose attention it is, and where it comes from."""
    attention = Attention(granularity="word", maps=(SELF_ATTENTION,), package_sha256="", precision="fp32")
    shown = drawn(highlighted_view(attention, every_layer=False))
    assert "% of they's attention · encoder layer 0, head 0" in shown

"""Rows of attention and the marks of AlignAtt, token by token, as callers of the demonstration models see them."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from regard.client import AsyncClient, Attention, AttentionOptions, Caption, RequestFailed, TokenDelta, Translation
from regard.errors import InvalidInputError
from regard.manifest import load_package

TEXTS = ("They grow oranges in California.", "Hi", "She said that she would come to the station with her brother.")


async def told(client: AsyncClient, text: str, **options: Any) -> tuple[list[TokenDelta], Translation]:
    """Return the deltas of a translation, and the whole."""
    *deltas, whole = [event async for event in client.stream_translate(text, **options)]
    assert isinstance(whole, Translation)
    return [delta for delta in deltas if isinstance(delta, TokenDelta)], whole


def scene() -> bytes:
    """Return a picture: a red square on white."""
    picture = Image.new("RGB", (64, 64), "white")
    picture.paste("red", (8, 30, 30, 52))
    file = BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def put_together(deltas: list[TokenDelta], attention: Attention) -> list[np.ndarray]:
    """Return every map of `attention` as the streamed rows tell it, in order."""
    rows = [row for delta in deltas for row in delta.attention]
    maps = []
    for one in attention.maps:
        weights = np.zeros_like(one.weights)
        own = [row for row in rows if (row.kind, row.layer) == (one.kind, one.layer)]
        assert sorted(row.query for row in own) == list(range(len(one.queries)))
        assert all((row.heads, row.reduction) == (one.heads, one.reduction) for row in own)
        assert {row.key_axis for row in own} == {one.key_axis}
        for row in own:
            weights[:, row.query, : row.weights.shape[1]] = row.weights
        maps.append(weights)
    assert len(rows) == sum(len(one.queries) for one in attention.maps)
    return maps


@pytest.mark.parametrize(
    "options",
    [
        AttentionOptions(),
        AttentionOptions(kinds=["self", "cross"], stacks=["decoder"]),
        AttentionOptions(reduction="mean"),
        AttentionOptions(reduction="max", heads=[2, 0], layers=[1]),
        AttentionOptions(heads=[3]),
        AttentionOptions(reduction="alignment_heads"),
    ],
)
async def test_streamed_rows_are_those_of_the_final_maps(client: AsyncClient, options: AttentionOptions) -> None:
    """To the last bit, of every kind, layer, head and reduction, short or long; a row comes once."""
    for text in TEXTS:
        deltas, whole = await told(client, text, attention=options)
        assert whole.attention is not None
        for streamed, one in zip(put_together(deltas, whole.attention), whole.attention.maps, strict=True):
            assert np.array_equal(streamed, one.weights)


async def test_a_row_comes_with_its_token(client: AsyncClient) -> None:
    """Those of alignment heads that tell one step later come with the next, and the last brings both."""
    deltas, _ = await told(client, TEXTS[0], attention=AttentionOptions(layers=[1]))
    assert [[row.query for row in delta.attention] for delta in deltas] == [[at] for at in range(len(deltas))]
    deltas, _ = await told(client, TEXTS[0], attention=AttentionOptions(reduction="alignment_heads"))
    late = [[row.query for row in delta.attention] for delta in deltas]
    assert late == [[], *([at] for at in range(len(deltas) - 2)), [len(deltas) - 2, len(deltas) - 1]]


async def test_the_source_comes_with_the_first_row(client: AsyncClient) -> None:
    """Once, as the final map's keys have it; rows of what was written so far need none."""
    deltas, whole = await told(client, TEXTS[0], attention=AttentionOptions(reduction="mean"))
    assert whole.attention is not None
    assert deltas[0].source == whole.attention.maps[0].keys
    assert not any(delta.source for delta in deltas[1:])
    deltas, _ = await told(client, TEXTS[0], attention=AttentionOptions(kinds=["self"], stacks=["decoder"]))
    assert all(delta.attention and not delta.source for delta in deltas)


@pytest.mark.parametrize(
    "options",
    [AttentionOptions(granularity="word"), AttentionOptions(reduction="rollout"), AttentionOptions(stacks=["encoder"])],
)
async def test_what_is_known_at_the_end_alone_comes_at_the_end(client: AsyncClient, options: AttentionOptions) -> None:
    """Words, rollouts and maps of the source have no rows before; nor has a stream that asks for no attention."""
    if options.stacks:
        options = AttentionOptions(kinds=["self"], stacks=options.stacks)
    deltas, whole = await told(client, TEXTS[0], attention=options)
    assert whole.attention is not None
    assert not any(delta.attention or delta.source for delta in deltas)
    deltas, whole = await told(client, TEXTS[0])
    assert whole.attention is None
    assert not any(delta.attention or delta.source or delta.safe_to_emit is not None for delta in deltas)


async def test_a_caption_is_streamed_with_where_each_word_looks(client: AsyncClient) -> None:
    """The rows run over patches, which the first delta labels."""
    events = [event async for event in client.stream_caption(scene(), attention=AttentionOptions(reduction="mean"))]
    *deltas, whole = events
    assert isinstance(whole, Caption) and whole.attention is not None
    own = [delta for delta in deltas if isinstance(delta, TokenDelta)]
    for streamed, one in zip(put_together(own, whole.attention), whole.attention.maps, strict=True):
        assert np.array_equal(streamed, one.weights)
    assert own[0].source == whole.attention.maps[0].keys


@pytest.mark.parametrize("frames", [1, 2, 5, 1000])
@pytest.mark.parametrize("chosen", [AttentionOptions(), AttentionOptions(layers=[1], heads=[0, 1])])
async def test_tokens_are_marked_as_align_att_has_it(
    client: AsyncClient, frames: int, chosen: AttentionOptions
) -> None:
    """A token is safe unless the peak of the mean weights, special tokens aside, is among the last f source tokens."""
    marks = []
    for text in TEXTS:
        deltas, whole = await told(client, text, attention=chosen, align_att_frames=frames)
        assert whole.attention is not None
        maps = whole.attention.maps
        real = [place for place, segment in enumerate(maps[0].keys) if not segment.special]
        mean = sum(one.weights.astype(np.float64).sum(axis=0) for one in maps)
        peaks = [max(range(len(real)), key=lambda place: row[real[place]]) for row in mean]
        expected = [len(real) - peak > frames for peak in peaks]
        assert [delta.safe_to_emit for delta in deltas] == expected
        marks += expected
    assert set(marks) == ({True, False} if frames < 1000 else {False})


async def test_alignment_heads_mark_by_those_that_tell_in_time(client: AsyncClient, packages: Path) -> None:
    """Of the calibrated heads, those of the step that makes the token."""
    deltas, _ = await told(
        client, TEXTS[2], attention=AttentionOptions(reduction="alignment_heads"), align_att_frames=2
    )
    _, whole = await told(client, TEXTS[2], attention=AttentionOptions())
    spec = load_package(packages / "demo-en-fr" / "1").manifest.alignment
    assert spec is not None and whole.attention is not None
    by_layer = {one.layer: one for one in whole.attention.maps}
    heads = [by_layer[head.layer].weights[head.head] for head in spec.heads if head.position == "output"]
    keys = whole.attention.maps[0].keys
    real = [place for place, segment in enumerate(keys) if not segment.special]
    peaks = np.mean(heads, axis=0)[:, real].argmax(axis=1)
    assert [delta.safe_to_emit for delta in deltas] == [bool(peak < len(real) - 2) for peak in peaks]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"align_att_frames": 2}, "align_att_frames marks tokens by what they attend to: set attention"),
        (
            {"align_att_frames": 2, "attention": AttentionOptions(kinds=["self"])},
            "align_att_frames marks tokens by cross-attention",
        ),
        (
            {"align_att_frames": 2000, "attention": AttentionOptions()},
            "align_att_frames must be from 1 to 1024, not 2000",
        ),
        ({"align_att_frames": 0, "attention": AttentionOptions()}, "align_att_frames must be at least 1, not 0"),
    ],
)
async def test_marks_that_can_t_be_had_are_refused(client: AsyncClient, options: dict[str, Any], problem: str) -> None:
    """With the field, what is wrong with it and what to do."""
    with pytest.raises((InvalidInputError, RequestFailed), match=problem):
        await told(client, TEXTS[0], **options)


async def test_marks_need_a_stream(client: AsyncClient) -> None:
    """The client says so before it asks."""
    with pytest.raises(InvalidInputError, match="ask for a stream"):
        await client.translate(TEXTS[0], attention=AttentionOptions(), align_att_frames=2)


async def test_rows_too_long_for_a_stream_come_at_the_end(client: AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is on what one token brings; the marks come all the same."""
    monkeypatch.setattr("regard.rpc.deltas.MOST_ROW_BYTES", 200)
    deltas, whole = await told(client, TEXTS[2], attention=AttentionOptions(), align_att_frames=1)
    assert whole.attention is not None
    assert not any(delta.attention for delta in deltas)
    assert all(delta.safe_to_emit is not None for delta in deltas)


async def test_rows_of_a_beam_come_when_its_tokens_are_settled(client: AsyncClient) -> None:
    """They are those of the sequence that is best in the end."""
    deltas, whole = await told(client, TEXTS[2], num_beams=4, attention=AttentionOptions(reduction="mean"))
    assert whole.attention is not None
    for streamed, one in zip(put_together(deltas, whole.attention), whole.attention.maps, strict=True):
        assert np.array_equal(streamed, one.weights)

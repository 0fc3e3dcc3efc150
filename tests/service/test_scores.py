"""Requests that do without scores, as a caller of the demonstration translator sees them."""

from __future__ import annotations

import json
import math

import pytest

from regard.cli.records import answer_record
from regard.client import AsyncClient, RequestFailed, TokenDelta, Translation

TEXTS = ["They grow oranges in California.", "Go!", "She bought bread and milk at the market."]


async def test_the_same_text_comes_without(client: AsyncClient) -> None:
    """Greedy, with beams, drawn and as alternatives; every sequence's scores are no numbers."""
    for options in (
        {},
        {"num_beams": 3, "num_return_sequences": 2},
        {"do_sample": True, "seed": 3, "num_return_sequences": 2},
        {"alternatives_position": 1, "num_return_sequences": 3},
    ):
        told, untold = [
            await client.translate_many(TEXTS, return_scores=return_scores, **options)
            for return_scores in (True, False)
        ]
        for one, other in zip(told, untold, strict=True):
            assert isinstance(one, Translation) and isinstance(other, Translation)
            for ours, theirs in zip((one, *one.further_sequences), (other, *other.further_sequences), strict=True):
                assert theirs.text == ours.text
                assert math.isfinite(ours.score) and math.isfinite(ours.log_probability)
                assert math.isnan(theirs.score) and math.isnan(theirs.log_probability)


async def test_a_streams_tokens_come_without(client: AsyncClient) -> None:
    """Each of them, and the whole behind them."""
    events = [event async for event in client.stream_translate(TEXTS[0], return_scores=False)]
    whole = events[-1]
    assert isinstance(whole, Translation) and math.isnan(whole.score)
    deltas = [event for event in events if isinstance(event, TokenDelta)]
    assert len(deltas) == len(events) - 1 == whole.target_tokens
    assert all(math.isnan(delta.log_probability) for delta in deltas)


async def test_words_are_told_of_without(client: AsyncClient) -> None:
    """Markup and a glossary need links alone."""
    glossary = [("oranges", "oranges")]
    told, untold = [
        await client.translate(
            "They grow <b>oranges</b>.", markup="html", glossary=glossary, return_scores=return_scores
        )
        for return_scores in (True, False)
    ]
    assert untold.text == told.text and "<b>" in told.text
    assert untold.glossary == told.glossary and len(told.glossary) == 1


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"alignment": True}, "can't be false with alignment, which tells how sure the model was of each word"),
        ({"quality": True}, "can't be false with quality, which tells how sure"),
        ({"token_logprobs": True}, "can't be false with token_logprobs, which lists some"),
        ({"top_logprobs": 2}, "can't be false with top_logprobs 2, which lists some"),
    ],
    ids=["alignment", "quality", "token_logprobs", "top_logprobs"],
)
async def test_what_tells_of_scores_needs_them(client: AsyncClient, fields: dict[str, object], problem: str) -> None:
    """The refusal names the option and what asks for scores."""
    with pytest.raises(RequestFailed, match=f"generation.return_scores {problem}"):
        await client.translate(TEXTS[0], return_scores=False, **fields)


async def test_a_record_has_null_for_them(client: AsyncClient) -> None:
    """JSON has no word for what is not a number."""
    answer = await client.translate(TEXTS[0], return_scores=False)
    record = json.loads(json.dumps(answer_record(TEXTS[0], answer), allow_nan=False))
    assert record["score"] is record["log_probability"] is None
    assert record["text"] == answer.text

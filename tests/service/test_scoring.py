"""ScoreTranslation, as a caller sees it."""

from __future__ import annotations

import grpc
import pytest

from regard.engine.request import GenerateRequest
from regard.v1 import translation_pb2

from .conftest import Serve
from .test_translation import refusal

CAT = "the cat"


def request_of(*pairs: tuple[str, str], **fields: object) -> translation_pb2.ScoreTranslationRequest:
    """Return a request for the only translator."""
    given = [translation_pb2.TranslationPair(text=text, target=target) for text, target in pairs]
    return translation_pb2.ScoreTranslationRequest(pairs=given, **fields)


async def test_every_pair_has_the_scores_of_its_tokens(serve: Serve) -> None:
    """They are those of the translation that is given, and of the end behind it; nothing is searched for."""
    async with serve() as running:
        response = await running.translation.ScoreTranslation(request_of((CAT, "hello"), ("hello", CAT)))
        codec, seen = running.catalog.find("echo").text, running.worker("echo").seen

    assert codec is not None
    for result, given, request in zip(response.results, ("hello", CAT), seen, strict=True):
        token_ids = [*codec.pieces(given), 0]
        assert [token.token_id for token in result.score.tokens] == token_ids == [*request.options.target_token_ids]
        assert result.score.log_probability == pytest.approx(-0.5 * len(token_ids))
        assert result.score.source_tokens == request.source.length


async def test_steps_are_foreseen_before_a_pair_is_read(serve: Serve) -> None:
    """What is expected of a text that is being read is a generation of one row, not an answer in one step."""
    async with serve() as running:
        await running.translation.ScoreTranslation(request_of((CAT, CAT)))
        (foreseen,) = running.worker("echo").foreseen

    assert isinstance(foreseen, GenerateRequest)
    assert foreseen.options.width == 1 and foreseen.options.max_new_tokens > 1


@pytest.mark.parametrize(
    ("pair", "field"),
    [((" ", "hello"), "pairs[1].text"), ((CAT, ""), "pairs[1].target"), ((CAT, "the cat " * 200), "pairs[1].target")],
    ids=["blank text", "no target", "long target"],
)
async def test_a_bad_pair_fails_alone(serve: Serve, pair: tuple[str, str], field: str) -> None:
    """The failure names what is wrong with it."""
    async with serve() as running:
        response = await running.translation.ScoreTranslation(request_of((CAT, CAT), pair))

    assert response.results[0].HasField("score")
    assert response.results[1].failure.field == field


async def test_an_unknown_language_is_refused(serve: Serve) -> None:
    """A language is a special token of the model, or the request ends."""
    async with serve() as running:
        call = running.translation.ScoreTranslation(request_of((CAT, CAT), target_language="xx_YY"))
        code, details = await refusal(call)

    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "target_language" in details

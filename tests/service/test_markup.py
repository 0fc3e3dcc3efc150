"""Markup, as a caller of the demonstration translator sees it come back."""

from __future__ import annotations

import grpc
import pytest

from regard.client import AsyncClient, Failure, RequestFailed, Translation
from regard.errors import InvalidInputError
from regard.v1 import translation_pb2

from .conftest import Serve


async def test_tags_go_with_their_words(client: AsyncClient) -> None:
    """Without its tags the translation is that of the text without tags; alignment comes only if asked for."""
    marked = await client.translate("They grow <b class='x'>oranges</b> in <i>California</i>.", markup="html")
    plain = await client.translate("They grow oranges in California.")

    assert "<b class='x'>oranges</b>" in marked.text and "<i>Californie</i>" in marked.text
    assert (
        marked.text.replace("<b class='x'>", "").replace("</b>", "").replace("<i>", "").replace("</i>", "")
        == plain.text
    )
    assert marked.alignment is None


async def test_placeholders_and_entities_come_back(client: AsyncClient) -> None:
    """A placeholder and an address stand in the translation once each, escaped as markup wants it."""
    text = (await client.translate("I saw {name} at https://a.org/?b=1&amp;c=2 <br/>yesterday.", markup="html")).text

    assert [text.count(part) for part in ("{name}", "https://a.org/?b=1&amp;c=2", "<br/>")] == [1, 1, 1]


async def test_every_sequence_is_marked(client: AsyncClient) -> None:
    """Of several sequences each has the tags, around words of its own."""
    answer = await client.translate(
        'Where is the <g id="1">station</g>?', markup="xliff", alignment=True, num_beams=4, num_return_sequences=3
    )

    for sequence in (answer, *answer.further_sequences):
        assert sequence.text.count('<g id="1">') == sequence.text.count("</g>") == 1
        assert sequence.alignment is not None


async def test_a_bad_document_fails_alone(client: AsyncClient) -> None:
    """Malformed markup is refused by its place; its neighbour is translated."""
    bad, good = await client.translate_many(["Hello <b>you", "<b>Hello</b>!"], markup="html")

    assert isinstance(bad, Failure) and isinstance(good, Translation)
    assert bad.message == "texts[0]: <b> is never closed, at position 6"


async def test_a_text_beyond_the_model_is_refused(client: AsyncClient) -> None:
    """A document whose text is too long is refused as the plain text is."""
    with pytest.raises(RequestFailed, match="the model takes at most"):
        await client.translate("<b>word</b> " * 300, markup="html")


async def test_streams_take_no_markup(client: AsyncClient) -> None:
    """Markup can't be placed before the last token, so that a stream is refused."""
    with pytest.raises(InvalidInputError, match="markup: a stream can't place it"):
        await anext(aiter(client.stream_translate("Hello!", markup="html")))


async def test_a_language_of_markup_that_is_none_is_refused(serve: Serve) -> None:
    """The message lists those that there are."""
    async with serve() as running:
        with pytest.raises(grpc.aio.AioRpcError, match=r"markup: 9 is not one of 2 \(html\), 3 \(xliff\)"):
            await running.translation.Translate(
                translation_pb2.TranslateRequest(texts=["Hello!"], markup=9)  # type: ignore[arg-type]
            )


async def test_a_package_that_was_not_calibrated_is_refused(serve: Serve) -> None:
    """Without alignment there is no place for markup; the refusal names the field."""
    async with serve() as running:
        with pytest.raises(grpc.aio.AioRpcError, match="markup: model echo tells no word alignment"):
            await running.translation.Translate(
                translation_pb2.TranslateRequest(texts=["Hello!"], markup=translation_pb2.MARKUP_HTML)
            )

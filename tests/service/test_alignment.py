"""Word alignments, as a caller of the demonstration translator sees them."""

from __future__ import annotations

from pathlib import Path

import grpc
import numpy as np
import pytest

from regard.client import AsyncClient, AttentionOptions, RequestFailed, Translation
from regard.manifest import load_package
from regard.v1 import attention_pb2, translation_pb2
from regard_export.alignment.bitext import Sentence
from regard_export.alignment.forcing import Forcer

from .conftest import Serve

ORANGES = "They grow oranges in California."


async def test_words_are_linked_with_their_spans(client: AsyncClient) -> None:
    """Each link joins a source word and a target word, whose spans are theirs in the texts, by a weight up to 1."""
    answer = await client.translate(ORANGES, alignment=True)

    assert answer.alignment is not None
    assert [word.text for word in answer.alignment.source_words] == ["They", "grow", "oranges", "in", "California", "."]
    assert all(ORANGES[word.start : word.end] == word.text for word in answer.alignment.source_words)
    assert all(answer.text[word.start : word.end] == word.text for word in answer.alignment.target_words)
    linked = {(link.source.text, link.target.text) for link in answer.alignment.links}
    assert {("oranges", "oranges"), ("California", "Californie")} <= linked
    assert all(0 < link.weight <= 1 for link in answer.alignment.links)
    assert answer.attention is None
    assert "California → Californie (" in str(answer.alignment)


async def test_nothing_is_aligned_unasked(client: AsyncClient) -> None:
    """A translation without the option has no alignment."""
    assert (await client.translate(ORANGES)).alignment is None


async def test_links_are_those_of_forced_decoding(client: AsyncClient, packages: Path) -> None:
    """Greedy or beam, the alignment is what the calibration's own decoding of the same two texts gives."""
    package = load_package(packages / "demo-en-fr" / "1")
    spec, forcer = package.manifest.alignment, Forcer(package.directory, package.manifest)
    assert spec is not None
    for options in ({}, {"num_beams": 4, "num_return_sequences": 3}):
        answer = await client.translate("Where is the old station?", alignment=True, **options)
        for sequence in (answer, *answer.further_sequences):
            found = sequence.alignment
            assert found is not None
            sides = [
                Sentence(text, tuple((word.start, word.end) for word in words))
                for text, words in (
                    ("Where is the old station?", found.source_words),
                    (sequence.text, found.target_words),
                )
            ]
            (weights,) = forcer.weights([(sides[0], sides[1])])
            mask, shares = spec.align(weights[[forcer.heads.index(head) for head in spec.heads]].mean(axis=0))
            expected = {(int(source), int(target)) for target, source in np.argwhere(mask)}
            places = [tuple(map(int, pair.split("-"))) for pair in found.pharaoh.split()]
            assert set(places) == expected
            for (source, target), link in zip(places, found.links, strict=True):
                assert link.weight == pytest.approx(shares[target, source], abs=1e-4)


async def test_a_stream_ends_with_its_alignment(client: AsyncClient) -> None:
    """The last event of a stream carries what the same request gives unstreamed."""
    whole = await client.translate(ORANGES, alignment=True)

    events = [event async for event in client.stream_translate(ORANGES, alignment=True)]

    last = events[-1]
    assert isinstance(last, Translation) and last.alignment is not None and whole.alignment is not None
    assert last.alignment.pharaoh == whole.alignment.pharaoh


async def test_alignment_heads_are_one_map(client: AsyncClient) -> None:
    """The reduction to alignment heads gives one map over words, of rows that sum to 1."""
    options = AttentionOptions(reduction="alignment_heads", granularity="word")
    attention = (await client.translate(ORANGES, attention=options)).attention

    assert attention is not None
    (one,) = attention.maps
    assert one.reduction == "alignment_heads"
    assert one.weights.shape == (1, len(one.queries), len(one.keys))
    assert np.allclose(one.weights.sum(axis=2), 1, atol=1e-5)


async def test_alignment_heads_are_not_chosen(client: AsyncClient) -> None:
    """Layers or heads beside the reduction to alignment heads are refused by name."""
    with pytest.raises(RequestFailed, match=r"attention\.layers: can't be chosen"):
        await client.translate(ORANGES, attention=AttentionOptions(reduction="alignment_heads", layers=[0]))


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"alignment": True}, "alignment"),
        (
            {"attention": attention_pb2.AttentionOptions(reduction="ATTENTION_REDUCTION_ALIGNMENT_HEADS")},
            "attention.reduction",
        ),
    ],
)
async def test_a_package_that_was_not_calibrated_is_refused(
    serve: Serve, fields: dict[str, object], field: str
) -> None:
    """Without calibration there is no alignment; the refusal names the field and what to do."""
    async with serve() as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.translation.Translate(translation_pb2.TranslateRequest(texts=["Hello!"], **fields))

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert f"{field}: model echo" in (caught.value.details() or "")
    assert "regard-export calibrate" in (caught.value.details() or "")

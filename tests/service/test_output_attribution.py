"""AttributeTranslation and AttributeCaption, as a caller sees them."""

from __future__ import annotations

import io
from pathlib import Path

import grpc
import numpy as np
import pytest
from PIL import Image

from regard.v1 import attribution_pb2

from .conftest import Serve
from .test_attribution import picture, stub_of
from .test_translation import refusal

CAT = "the cat"


def request_of(*texts: str, target: str | None = None, **fields: object) -> attribution_pb2.AttributeTranslationRequest:
    """Return a request for the only translator."""
    inputs = [attribution_pb2.TranslatedText(text=text, target=target) for text in texts]
    return attribution_pb2.AttributeTranslationRequest(inputs=inputs, **fields)


async def test_every_word_of_the_output_has_weights(serve: Serve) -> None:
    """The output is the model's own; a part's weight is the sum over the words, and scored tokens stand beside."""
    async with serve() as running:
        response = await stub_of(running).AttributeTranslation(request_of(CAT))
        seen = running.worker("echo").seen

    (result,) = response.results
    told = result.attribution
    assert told.text == CAT
    assert [one.method for one in told.attributions.methods] == [1, 2, 3, 4]
    parts = len(told.attributions.source.segments)
    for one in told.attributions.methods:
        weights = np.reshape(one.target_weights, (-1, parts))
        assert len(weights) == len(told.target.segments)
        np.testing.assert_allclose(weights.sum(axis=0), one.weights, atol=1e-12)
    assert not seen[0].options.target_token_ids
    scored = {request.options.target_token_ids for request in seen[1:]}
    assert scored == {tuple(token.token_id for token in told.tokens)}
    assert told.attributions.runs == len(seen) - 1


async def test_a_given_output_is_scored_and_not_searched_for(serve: Serve) -> None:
    """Every run has the tokens that were given, and the end."""
    async with serve() as running:
        await stub_of(running).AttributeTranslation(request_of(CAT, target="hello"))
        seen, codec = running.worker("echo").seen, running.catalog.find("echo").text

    assert codec is not None
    assert {request.options.target_token_ids for request in seen} == {(*codec.pieces("hello"), 0)}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"generation": {"num_return_sequences": 2, "num_beams": 2}}, "generation.num_return_sequences"),
        ({"generation": {"stop_strings": ["cat"]}}, "generation.stop_strings"),
        ({"generation": {"top_logprobs": 2}}, "generation.top_logprobs"),
        ({"generation": {"return_scores": False}}, "generation.return_scores"),
        ({"generation": {"num_beams": 1000}}, "generation.num_beams"),
        ({"attribution": {"methods": [9]}}, "attribution.methods[0]"),
        ({"model_name": "sorter"}, "ClassificationService"),
    ],
)
async def test_what_cannot_be_asked_is_refused_by_its_name(serve: Serve, fields: dict[str, object], field: str) -> None:
    """The whole request is refused, before the model has run."""
    async with serve() as running:
        code, details = await refusal(stub_of(running).AttributeTranslation(request_of(CAT, **fields)))
        assert not running.worker("echo").seen

    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert field in details


@pytest.mark.parametrize(
    ("target", "fields", "problem"),
    [
        ("", {}, "inputs[0].target holds nothing"),
        ("hello", {"generation": {"target_prefix": "the"}}, "generation.target_prefix can't be set"),
        ("the cat " * 200, {}, "the model writes at most"),
        ("hello", {"attribution": {"methods": [5]}}, "alignment_heads can't be had"),
    ],
)
async def test_an_output_that_cannot_be_scored_fails_its_input(
    serve: Serve, target: str, fields: dict[str, object], problem: str
) -> None:
    """The failure says what is wrong with it."""
    async with serve() as running:
        response = await stub_of(running).AttributeTranslation(request_of(CAT, target=target, **fields))

    assert problem in response.results[0].failure.message


async def test_patches_are_weighed_for_every_word_of_a_caption(serve: Serve, galleries: Path) -> None:
    """The parts are the image's patches, with their grid; each method comes drawn over the image."""
    request = attribution_pb2.AttributeCaptionRequest(
        inputs=[attribution_pb2.CaptionedImage(image=picture())], attribution={"overlay": True, "methods": [2, 3]}
    )
    async with serve(galleries) as running:
        response = await stub_of(running).AttributeCaption(request)

    told = response.results[0].attribution.attributions
    patches = told.source.grid.rows * told.source.grid.columns
    assert len(told.source.segments) == patches
    for one in told.methods:
        assert len(one.weights) == patches
        assert Image.open(io.BytesIO(one.overlay)).size == (512, 341)

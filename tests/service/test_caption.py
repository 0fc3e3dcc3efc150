"""Captions over gRPC, around a scripted worker: what goes in, what comes out, and what is refused."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image

from regard.text.codec import TextCodec
from regard.v1 import attention_pb2, caption_pb2, classification_pb2, generation_pb2, translation_pb2

from .conftest import Running, Serve
from .scripted_worker import CAPTION
from .test_translation import refusal

INVALID = 3


def image(width: int = 60, height: int = 40, mode: str = "RGB", kind: str = "PNG") -> bytes:
    """Return an image file."""
    file = io.BytesIO()
    Image.effect_noise((width, height), 50).convert(mode).save(file, kind)
    return file.getvalue()


def request_of(*images: bytes, **fields: Any) -> caption_pb2.CaptionRequest:
    """Return a request for captions."""
    return caption_pb2.CaptionRequest(images=images, **fields)


def words_of(running: Running) -> str:
    """Return the caption that the scripted worker gives."""
    codec = running.catalog.find("viewer").text
    assert isinstance(codec, TextCodec)
    return codec.decode(CAPTION)


async def test_every_image_gets_its_caption(serve: Serve, galleries: Path) -> None:
    """Pixel values of the model's size reach the worker, and its tokens come back as text."""
    async with serve(galleries) as running:
        response = await running.caption.Caption(request_of(image(), image(7, 9, kind="JPEG"), image(kind="WEBP")))
        seen = running.worker("viewer").seen
        expected = words_of(running)

    captions = [result.caption for result in response.results]
    assert [caption.text for caption in captions] == [expected] * 3
    assert captions[0].finish_reason == generation_pb2.FINISH_REASON_END_OF_SENTENCE
    assert captions[0].target_tokens == len(CAPTION)
    assert (response.model.name, response.model.version) == ("viewer", "1")
    assert [(one.source.pixel_values.shape, one.source.length) for one in seen] == [((3, 32, 48), 7)] * 3


async def test_one_bad_image_harms_no_other(serve: Serve, galleries: Path) -> None:
    """Text, a truncated file and nothing at all are refused by name; the images beside them are captioned."""
    whole = image(kind="JPEG")
    async with serve(galleries) as running:
        response = await running.caption.Caption(request_of(whole, b"hello", whole[: len(whole) // 2], b"", whole))

    outcomes = [result.WhichOneof("outcome") for result in response.results]
    assert outcomes == ["caption", "failure", "failure", "failure", "caption"]
    failures = [result.failure for result in response.results if result.HasField("failure")]
    assert [failure.code for failure in failures] == [INVALID] * 3
    assert [failure.field for failure in failures] == ["images[1]", "images[2]", "images[3]"]
    assert ["not an image" in failures[0].message, "damaged" in failures[1].message, "empty" in failures[2].message]


@pytest.mark.parametrize(("setting", "limit"), [("max_image_bytes", 1024), ("max_image_pixels", 1024)])
async def test_an_image_over_a_limit_is_refused_by_its_number(
    serve: Serve, galleries: Path, setting: str, limit: int
) -> None:
    """Bytes and pixels have limits of their own, and the message says which, and by how much."""
    async with serve(galleries, **{setting: limit}) as running:
        response = await running.caption.Caption(request_of(image(60, 40), image(8, 8)))

    refused, served = response.results
    assert refused.failure.field == "images[0]"
    assert str(limit) in refused.failure.message
    assert served.WhichOneof("outcome") == "caption"


async def test_attention_is_over_patches_that_know_their_place(serve: Serve, galleries: Path) -> None:
    """The key axis is [CLS] and the grid's patches, and the grid lies in the image's own pixels."""
    async with serve(galleries) as running:
        response = await running.caption.Caption(request_of(image(60, 40), attention={}))

    attention = response.results[0].caption.attention
    axes = {axis.axis: axis for axis in attention.axes}
    source = axes[attention_pb2.ATTENTION_AXIS_SOURCE]
    assert [segment.text for segment in source.segments] == ["[CLS]", "0,0", "0,1", "0,2", "1,0", "1,1", "1,2"]
    assert [segment.special for segment in source.segments] == [True] + [False] * 6
    grid = source.grid
    assert (grid.rows, grid.columns, grid.image_width, grid.image_height) == (2, 3, 60, 40)
    assert (grid.left, grid.top, grid.width, grid.height) == (0, 0, 60, 40)
    assert not axes[attention_pb2.ATTENTION_AXIS_TARGET].HasField("grid")
    for one in attention.maps:
        assert one.kind == attention_pb2.ATTENTION_KIND_CROSS
        weights = np.frombuffer(one.weights, "<f4").reshape(tuple(one.shape))
        assert weights.shape[1:] == (len(CAPTION), 7)
        np.testing.assert_allclose(weights.sum(axis=2), 1, atol=1e-5)


async def test_words_are_pooled_and_patches_are_not(serve: Serve, galleries: Path) -> None:
    """Word granularity joins the caption's tokens; the image's axis stays as it is."""
    options = attention_pb2.AttentionOptions(granularity=attention_pb2.ATTENTION_GRANULARITY_WORD)
    async with serve(galleries) as running:
        response = await running.caption.Caption(request_of(image(), attention=options))

    axes = {axis.axis: axis for axis in response.results[0].caption.attention.axes}
    words = axes[attention_pb2.ATTENTION_AXIS_TARGET].segments
    assert len(words) <= len(CAPTION)
    assert len(axes[attention_pb2.ATTENTION_AXIS_SOURCE].segments) == 7


async def test_a_stream_brings_tokens_and_then_the_caption(serve: Serve, galleries: Path) -> None:
    """The deltas of an image, put together, are its caption; a bad image ends with its failure."""
    async with serve(galleries) as running:
        stream = running.caption.StreamCaption(caption_pb2.StreamCaptionRequest(images=[image(), b"no"]))
        events = [event async for event in stream]
        expected = words_of(running)

    own = [event for event in events if event.input_index == 0]
    assert "".join(event.delta.text for event in own[:-1]) == own[-1].caption.text == expected
    assert own[-1].model.version == "1"
    (failure,) = [event.failure for event in events if event.input_index == 1]
    assert failure.field == "images[1]"


async def test_who_leaves_a_stream_is_let_go_of(serve: Serve, galleries: Path) -> None:
    """Cancelling the call takes its image out of the worker."""
    async with serve(galleries) as running:
        worker = running.worker("viewer")
        worker.pause_after = 1
        stream = running.caption.StreamCaption(caption_pb2.StreamCaptionRequest(images=[image()]))
        await stream.read()
        stream.cancel()
        async with asyncio.timeout(5):
            async with worker.changed:
                await worker.changed.wait_for(lambda: worker.inside == 0)
        assert worker.left_early == 1


async def test_an_image_classifier_takes_images_and_refuses_text(serve: Serve, galleries: Path) -> None:
    """Each input says what it is; the wrong kind is refused by name, beside one that is served."""
    inputs = [classification_pb2.ClassificationInput(image=image()), classification_pb2.ClassificationInput(text="hi")]
    async with serve(galleries) as running:
        request = classification_pb2.ClassifyRequest(inputs=inputs, attention={})
        served, refused = (await running.classification.Classify(request)).results

    assert served.classification.source_tokens == 7
    assert len(served.classification.attention.axes) == 1
    assert served.classification.attention.axes[0].grid.columns == 3
    assert (refused.failure.code, refused.failure.field) == (INVALID, "inputs[1].text")
    assert "curator takes images, not text" in refused.failure.message


async def test_a_text_classifier_refuses_images(serve: Serve) -> None:
    """The refusal names the input and says what the model takes."""
    inputs = [classification_pb2.ClassificationInput(image=image())]
    async with serve() as running:
        response = await running.classification.Classify(classification_pb2.ClassifyRequest(inputs=inputs))

    failure = response.results[0].failure
    assert (failure.code, failure.field) == (INVALID, "inputs[0].image")
    assert "sorter takes text, not images" in failure.message


async def test_a_captioner_does_not_translate(serve: Serve, galleries: Path) -> None:
    """The wrong service is told the right one."""
    async with serve(galleries) as running:
        request = translation_pb2.TranslateRequest(model_name="viewer", texts=["A cat."])
        code, details = await refusal(running.translation.Translate(request))

    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "CaptionService" in details


async def test_no_images_and_too_many_are_refused(serve: Serve, galleries: Path) -> None:
    """The number of images has the limit of every request's inputs."""
    async with serve(galleries, max_inputs=2) as running:
        none, _ = await refusal(running.caption.Caption(request_of()))
        many, details = await refusal(running.caption.Caption(request_of(*[image()] * 3)))

    assert none is many is grpc.StatusCode.INVALID_ARGUMENT
    assert "images: 3 given" in details

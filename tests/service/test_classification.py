"""Classify, as a caller sees it."""

from __future__ import annotations

import grpc
import numpy as np
import pytest

from regard.manifest import ClassificationSpec
from regard.rpc import convert
from regard.v1 import attention_pb2, classification_pb2

from .conftest import LABELS, Serve
from .test_translation import refusal

HELLO = "Hello, world!"


def request_of(*texts: str, **fields: object) -> classification_pb2.ClassifyRequest:
    """Return a request for the only classifier."""
    inputs = [classification_pb2.ClassificationInput(text=text) for text in texts]
    return classification_pb2.ClassifyRequest(inputs=inputs, **fields)


async def test_every_input_has_its_likeliest_classes(serve: Serve) -> None:
    """Results stand in the order of the inputs, classes in descending order of probability."""
    async with serve() as running:
        response = await running.classification.Classify(request_of(HELLO, "the cat"))

    assert (response.model.name, response.model.version) == ("sorter", "1")
    for result in response.results:
        probabilities = [one.probability for one in result.classification.classes]
        assert probabilities == sorted(probabilities, reverse=True)
        assert sum(probabilities) == pytest.approx(1.0)
        assert {one.label for one in result.classification.classes} == set(LABELS)
        assert all(LABELS[one.index] == one.label for one in result.classification.classes)
        assert result.classification.timing.encode_s == 0.002


async def test_as_many_classes_as_asked_for(serve: Serve) -> None:
    """`top_k` limits the classes, and more than there are is refused with their number."""
    async with serve() as running:
        response = await running.classification.Classify(request_of(HELLO, top_k=2))
        code, details = await refusal(running.classification.Classify(request_of(HELLO, top_k=5)))

    assert len(response.results[0].classification.classes) == 2
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "4 classes" in details


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (classification_pb2.ClassificationInput(text=" "), "inputs[1].text"),
        (classification_pb2.ClassificationInput(text="a\0"), "inputs[1].text"),
        (classification_pb2.ClassificationInput(text="the cat " * 40), "inputs[1].text"),
        (classification_pb2.ClassificationInput(), "inputs[1]"),
    ],
    ids=["blank", "NUL", "too long", "no content"],
)
async def test_a_bad_input_fails_its_own_result_only(
    serve: Serve, bad: classification_pb2.ClassificationInput, field: str
) -> None:
    """An input that the model can't take gives a failure that names it."""
    request = request_of(HELLO, "", HELLO)
    request.inputs[1].CopyFrom(bad)
    async with serve() as running:
        response = await running.classification.Classify(request)

    outcomes = [result.WhichOneof("outcome") for result in response.results]
    assert outcomes == ["classification", "failure", "classification"]
    assert response.results[1].failure.field == field
    assert response.results[1].failure.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]


async def test_two_texts_are_classified_together(serve: Serve) -> None:
    """A pair is one input; a second text beside an image is refused by its name."""
    pair = classification_pb2.ClassificationInput(text=HELLO, text_pair="the cat")
    bad = classification_pb2.ClassificationInput(image=b"GIF", text_pair="the cat")
    async with serve() as running:
        response = await running.classification.Classify(
            classification_pb2.ClassifyRequest(inputs=[pair, bad], attention={"granularity": 2})
        )
        codec, seen = running.catalog.find("sorter").text, running.worker("sorter").seen

    assert codec is not None
    together = codec.encode_pair(HELLO, "the cat", truncate=False, field="text", pair_field="text_pair")
    assert seen[0].source.length == len(together.token_ids)
    (axis,) = response.results[0].classification.attention.axes
    words = [(segment.text, segment.part) for segment in axis.segments if not segment.special]
    assert words == [("Hello", 0), (",", 0), ("world", 0), ("!", 0), ("the", 1), ("cat", 1)]
    assert response.results[1].failure.field == "inputs[1].text_pair"


async def test_attention_is_the_encoders_own(serve: Serve) -> None:
    """By default every layer's self-attention comes, over the input on both axes."""
    async with serve() as running:
        response = await running.classification.Classify(request_of(HELLO, attention={}))

    classification = response.results[0].classification
    tokens = classification.source_tokens
    assert [axis.axis for axis in classification.attention.axes] == [attention_pb2.ATTENTION_AXIS_SOURCE]
    assert [tuple(one.shape) for one in classification.attention.maps] == [(2, tokens, tokens)] * 2


async def test_a_translator_does_not_classify(serve: Serve) -> None:
    """The wrong task is refused with the service to call."""
    async with serve() as running:
        code, details = await refusal(running.classification.Classify(request_of(HELLO, model_name="echo")))

    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "TranslationService" in details


@pytest.mark.parametrize(
    ("logits", "expected"),
    [([9.0, 0.0, 0.0, 0.0], False), ([0.0, 0.0, 0.0, 9.0], True), ([0.1, 0.0, 0.0, 0.0], True)],
    ids=["sure of a class", "sure of the out-of-scope class", "sure of nothing"],
)
def test_out_of_scope_is_a_class_or_a_lack_of_confidence(logits: list[float], expected: bool) -> None:
    """An answer is out of scope by its class or by the threshold."""
    spec = ClassificationSpec(labels=LABELS, out_of_scope_label="other", out_of_scope_threshold=0.5)
    probabilities = convert.softmax(np.array(logits, np.float32))

    assert convert.out_of_scope(convert.classes(probabilities, LABELS, 4)[0], spec) is expected


def test_a_model_without_a_way_to_say_so_is_never_out_of_scope() -> None:
    """Neither class nor threshold: every answer counts."""
    spec = ClassificationSpec(labels=LABELS, out_of_scope_label=None, out_of_scope_threshold=None)
    likeliest = classification_pb2.ClassProbability(label="other", index=3, probability=0.1)

    assert not convert.out_of_scope(likeliest, spec)


def test_large_logits_give_probabilities() -> None:
    """The softmax does not overflow."""
    probabilities = convert.softmax(np.array([1e4, 1e4, -1e4], np.float32))

    np.testing.assert_allclose(probabilities, [0.5, 0.5, 0.0])

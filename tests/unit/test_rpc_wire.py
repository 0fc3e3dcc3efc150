"""Responses whose weights are written into their bytes once."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from google.protobuf.message import Message

from regard.rpc.wire import Weights, bytes_behind, serialize
from regard.v1 import attention_pb2, classification_pb2, generation_pb2, translation_pb2


def attention(weights: Weights, arrays: list[bytes]) -> attention_pb2.Attention:
    """Return maps that hold tickets for weights."""
    maps = [
        attention_pb2.AttentionMap(layer=layer, heads=[0, 1], weights=weights.put(one))
        for layer, one in enumerate(arrays)
    ]
    return attention_pb2.Attention(maps=maps, package_sha256="ab", precision="fp32")


def test_a_response_reads_as_if_protobuf_had_written_its_weights() -> None:
    """Whatever is around the maps: repeated, in a oneof, beside failures, several deep."""
    random, weights = np.random.default_rng(0), Weights()
    arrays = [random.bytes(24 * length) for length in (1, 5, 300)]
    classified = classification_pb2.Classification(out_of_scope=True, attention=attention(weights, arrays))
    response = classification_pb2.ClassifyResponse(
        results=[
            classification_pb2.ClassificationResult(classification=classified),
            classification_pb2.ClassificationResult(failure={"message": "no"}),
            classification_pb2.ClassificationResult(classification=classification_pb2.Classification()),
        ],
        model={"name": "tiny"},
    )
    expected = classification_pb2.ClassifyResponse.FromString(response.SerializeToString())
    for one, array in zip(expected.results[0].classification.attention.maps, arrays, strict=True):
        one.weights = array
    assert classification_pb2.ClassifyResponse.FromString(serialize(response, weights)) == expected
    assert weights.num_bytes == 0


def test_sequences_behind_the_best_have_their_own_weights() -> None:
    """Tickets are taken by number, whatever order the maps come in; bytes are taken as they are."""
    weights = Weights()
    first, second = attention(weights, [b"abcd"]), attention(weights, [b"", b"xyz"])
    sequences = [generation_pb2.GeneratedSequence(text="b", attention=second)]
    translation = translation_pb2.Translation(text="a", attention=first, further_sequences=sequences)
    streamed = translation_pb2.StreamTranslateResponse(input_index=3, translation=translation)
    told = translation_pb2.StreamTranslateResponse.FromString(serialize(streamed, weights)).translation
    assert told.attention.maps[0].weights == b"abcd"
    assert [one.weights for one in told.further_sequences[0].attention.maps] == [b"", b"xyz"]
    assert (told.text, told.further_sequences[0].text) == ("a", "b")


def test_a_ticket_tells_how_many_bytes_wait() -> None:
    """Before anything is written, and of an empty map, too."""
    weights = Weights()
    maps = attention(weights, [bytes(120), b""]).maps
    assert [bytes_behind(one.weights) for one in maps] == [120, 0]
    assert weights.num_bytes == 120


def test_weights_may_be_put_in_while_they_are_counted() -> None:
    """A stream's writer asks how much waits, while threads put in what its inputs attended to."""
    weights = Weights()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(2) as threads:
            putting = [threads.submit(lambda: [weights.put(b"ab") for _ in range(2000)]) for _ in range(2)]
            while not all(one.done() for one in putting):
                assert weights.num_bytes % 2 == 0
    finally:
        sys.setswitchinterval(interval)
    assert weights.num_bytes == 8000


@pytest.mark.parametrize(
    "message",
    [
        translation_pb2.StreamTranslateResponse(input_index=1, delta=generation_pb2.TokenDelta(text="a", token_id=7)),
        attention_pb2.Attention(precision="fp32"),
        classification_pb2.ClassifyResponse(),
    ],
)
def test_a_message_without_maps_is_written_as_ever(message: Message) -> None:
    """Events of a stream that has maps to come, and empty answers."""
    assert serialize(message, Weights()) == message.SerializeToString()


def test_a_map_of_no_keys_waits_to_be_written() -> None:
    """Weights of no bytes have a ticket, too, which must not be sent in their place."""
    weights = Weights()
    assert not weights
    ticket = weights.put(b"")
    assert weights
    assert weights.take(ticket) == b""
    assert not weights

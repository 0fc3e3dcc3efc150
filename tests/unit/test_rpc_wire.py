"""Responses whose weights are written into their bytes once."""

from __future__ import annotations

import numpy as np
import pytest
from google.protobuf.message import Message

from regard.rpc.wire import Weights, bytes_behind, serialize
from regard.v1 import attention_pb2, classification_pb2, generation_pb2, translation_pb2


def attention(weights: Weights, arrays: list[np.ndarray | bytes]) -> attention_pb2.Attention:
    """Return maps that hold tickets for arrays."""
    maps = [
        attention_pb2.AttentionMap(layer=layer, heads=[0, 1], weights=weights.put(one))
        for layer, one in enumerate(arrays)
    ]
    return attention_pb2.Attention(maps=maps, package_sha256="ab", precision="fp32")


def test_a_response_reads_as_if_protobuf_had_written_its_weights() -> None:
    """Whatever is around the maps: repeated, in a oneof, beside failures, several deep."""
    random, weights = np.random.default_rng(0), Weights()
    arrays = [random.random((2, 3, length), dtype=np.float32) for length in (1, 5, 300)]
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
        one.weights = array.tobytes()
    assert classification_pb2.ClassifyResponse.FromString(serialize(response, weights)) == expected
    assert weights.num_bytes == 0


def test_sequences_behind_the_best_have_their_own_weights() -> None:
    """Tickets are taken by number, whatever order the maps come in; bytes are taken as they are."""
    weights = Weights()
    first, second = attention(weights, [np.ones((1, 2, 2), np.float32)]), attention(weights, [b"", b"xyz"])
    sequences = [generation_pb2.GeneratedSequence(text="b", attention=second)]
    translation = translation_pb2.Translation(text="a", attention=first, further_sequences=sequences)
    streamed = translation_pb2.StreamTranslateResponse(input_index=3, translation=translation)
    told = translation_pb2.StreamTranslateResponse.FromString(serialize(streamed, weights)).translation
    assert told.attention.maps[0].weights == np.ones(4, np.float32).tobytes()
    assert [one.weights for one in told.further_sequences[0].attention.maps] == [b"", b"xyz"]
    assert (told.text, told.further_sequences[0].text) == ("a", "b")


def test_rows_of_a_longer_array_are_put_side_by_side() -> None:
    """A map that was cut out of a padded batch is written without the padding."""
    weights, padded = Weights(), np.arange(2 * 4 * 4, dtype=np.float32).reshape(2, 4, 4)
    told = attention_pb2.Attention.FromString(serialize(attention(weights, [padded[:, :3, :3]]), weights))
    assert np.array_equal(np.frombuffer(told.maps[0].weights, "<f4").reshape(2, 3, 3), padded[:, :3, :3])


def test_a_ticket_tells_how_many_bytes_wait() -> None:
    """Before anything is written, and of an empty map, too."""
    weights = Weights()
    maps = attention(weights, [np.zeros((2, 3, 5), np.float32), np.zeros((2, 0, 5), np.float32)]).maps
    assert [bytes_behind(one.weights) for one in maps] == [120, 0]
    assert weights.num_bytes == 120


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

"""Captions."""

from __future__ import annotations

from regard.answers import Caption, ModelVersion, TokenDelta
from regard.client.failures import Failure
from regard.client.results.attention import read_attention
from regard.client.results.generation import read_delta, read_finish_reason, read_sequences, read_tokens
from regard.client.results.outcome import read_failure, read_model_version, read_timing
from regard.v1 import caption_pb2


def read_captions(response: caption_pb2.CaptionResponse, first_index: int) -> list[Caption | Failure]:
    """Read the results of a request whose first image is the caller's image `first_index`."""
    model = read_model_version(response.model)
    return [
        read_failure(result.failure, "images", first_index)
        if result.HasField("failure")
        else read_caption(result.caption, model)
        for result in response.results
    ]


def read_caption(caption: caption_pb2.Caption, model: ModelVersion) -> Caption:
    """Read one caption."""
    return Caption(
        text=caption.text,
        finish_reason=read_finish_reason(caption.finish_reason),
        target_tokens=caption.target_tokens,
        log_probability=caption.log_probability,
        attention=read_attention(caption.attention) if caption.HasField("attention") else None,
        timing=read_timing(caption.timing),
        model=model,
        score=caption.score,
        tokens=read_tokens(caption.tokens),
        further_sequences=read_sequences(caption.further_sequences),
    )


def read_caption_event(event: caption_pb2.StreamCaptionResponse) -> TokenDelta | Caption | Failure:
    """Read one event of the stream of one image."""
    if event.HasField("failure"):
        return read_failure(event.failure, "images", 0)
    if event.HasField("caption"):
        return read_caption(event.caption, read_model_version(event.model))
    return read_delta(event.delta)

"""Transcriptions."""

from __future__ import annotations

from regard.answers import ModelVersion, SpokenSegment, TokenDelta, Transcription, TranscriptionWindow
from regard.client.failures import Failure
from regard.client.results.attention import read_attention
from regard.client.results.generation import read_delta, read_finish_reason, read_sequences, read_tokens
from regard.client.results.outcome import read_failure, read_model_version, read_timing
from regard.v1 import transcription_pb2


def read_transcriptions(
    response: transcription_pb2.TranscribeResponse, first_index: int
) -> list[Transcription | Failure]:
    """Read the results of a request whose first sound is the caller's sound `first_index`."""
    model = read_model_version(response.model)
    return [
        read_failure(result.failure, "inputs", first_index)
        if result.HasField("failure")
        else read_transcription(result.transcription, model)
        for result in response.results
    ]


def read_transcription(sent: transcription_pb2.Transcription, model: ModelVersion) -> Transcription:
    """Read one transcription."""
    return Transcription(
        text=sent.text,
        language=sent.language,
        duration_s=sent.duration_s,
        segments=tuple(SpokenSegment(one.start_s, one.end_s, one.text) for one in sent.segments),
        windows=tuple(map(_read_window, sent.windows)),
        model=model,
    )


def read_transcription_event(
    event: transcription_pb2.StreamTranscribeResponse,
) -> TokenDelta | Transcription | Failure:
    """Read one event of the stream of one sound."""
    if event.HasField("failure"):
        return read_failure(event.failure, "inputs", 0)
    if event.HasField("transcription"):
        return read_transcription(event.transcription, read_model_version(event.model))
    return read_delta(event.delta)


def _read_window(window: transcription_pb2.TranscriptionWindow) -> TranscriptionWindow:
    return TranscriptionWindow(
        start_s=window.start_s,
        end_s=window.end_s,
        text=window.text,
        finish_reason=read_finish_reason(window.finish_reason),
        target_tokens=window.target_tokens,
        log_probability=window.log_probability,
        attention=read_attention(window.attention) if window.HasField("attention") else None,
        timing=read_timing(window.timing),
        score=window.score,
        tokens=read_tokens(window.tokens),
        further_sequences=read_sequences(window.further_sequences),
    )

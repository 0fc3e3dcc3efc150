"""Completions."""

from __future__ import annotations

from regard.answers import Completion, ModelVersion, TokenDelta
from regard.client.failures import Failure
from regard.client.results.attention import read_attention
from regard.client.results.generation import read_delta, read_finish_reason, read_sequences, read_tokens
from regard.client.results.outcome import read_failure, read_model_version, read_timing
from regard.v1 import completion_pb2


def read_completions(response: completion_pb2.CompleteResponse, first_index: int) -> list[Completion | Failure]:
    """Read the results of a request whose first prompt is the caller's prompt `first_index`."""
    model = read_model_version(response.model)
    return [
        read_failure(result.failure, "prompts", first_index)
        if result.HasField("failure")
        else read_completion(result.completion, model)
        for result in response.results
    ]


def read_completion(completion: completion_pb2.Completion, model: ModelVersion) -> Completion:
    """Read one completion."""
    return Completion(
        text=completion.text,
        finish_reason=read_finish_reason(completion.finish_reason),
        prompt_tokens=completion.prompt_tokens,
        target_tokens=completion.target_tokens,
        log_probability=completion.log_probability,
        attention=read_attention(completion.attention) if completion.HasField("attention") else None,
        timing=read_timing(completion.timing),
        model=model,
        score=completion.score,
        tokens=read_tokens(completion.tokens),
        further_sequences=read_sequences(completion.further_sequences),
    )


def read_completion_event(event: completion_pb2.StreamCompleteResponse) -> TokenDelta | Completion | Failure:
    """Read one event of the stream of one prompt."""
    if event.HasField("failure"):
        return read_failure(event.failure, "prompts", 0)
    if event.HasField("completion"):
        return read_completion(event.completion, read_model_version(event.model))
    return read_delta(event.delta)

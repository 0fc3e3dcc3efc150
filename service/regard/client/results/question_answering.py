"""Answers to questions."""

from __future__ import annotations

from regard.answers import AnsweredQuestion, AnswerSpan, ModelVersion
from regard.client.failures import Failure
from regard.client.results.attention import read_attention
from regard.client.results.outcome import read_failure, read_model_version, read_timing
from regard.v1 import question_answering_pb2


def read_answered_questions(
    response: question_answering_pb2.AnswerResponse, first_index: int
) -> list[AnsweredQuestion | Failure]:
    """Read the results of a request whose first question is the caller's question `first_index`."""
    model = read_model_version(response.model)
    return [
        read_failure(result.failure, "inputs", first_index)
        if result.HasField("failure")
        else _read_answered_question(result.answered, model)
        for result in response.results
    ]


def _read_answered_question(answered: question_answering_pb2.AnsweredQuestion, model: ModelVersion) -> AnsweredQuestion:
    return AnsweredQuestion(
        answers=tuple(
            AnswerSpan(text=one.text, score=one.score, start=one.start, end=one.end) for one in answered.answers
        ),
        null_score=answered.null_score,
        windows=answered.windows,
        source_tokens=answered.source_tokens,
        attention=read_attention(answered.attention) if answered.HasField("attention") else None,
        timing=read_timing(answered.timing),
        model=model,
    )

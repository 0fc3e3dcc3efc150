"""What a caller may ask of an answer to a question, and the message that asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from regard.client.requests.attention import AttentionOptions, attention_message
from regard.client.requests.inputs import Pair
from regard.client.requests.options import read_options
from regard.client.requests.values import Priority, priority_message, read_count
from regard.v1 import question_answering_pb2


class AnswerOptions(TypedDict, total=False):
    """The options of answering a question, all optional."""

    model: str
    """The model's name. Default: the server's only question answering model."""
    version: str
    """The model's version. Default: the highest."""
    top_k: int
    """How many answers to return. Default: 1."""
    max_answer_tokens: int
    """The most tokens of an answer. Default: 15."""
    handle_impossible_answer: bool
    """Whether "there is no answer" is one. Default: False."""
    align_to_words: bool
    """Whether answers are widened to whole words. Default: True."""
    window_tokens: int
    """How many tokens the model reads at once. Default: 384, or its positions if they are fewer."""
    overlap_tokens: int
    """How many tokens of the context a window shares with the one before. Default: at most 128."""
    priority: Priority
    """Whose turn comes first among the requests that wait for a place. Default: normal."""
    attention: AttentionOptions
    """The attention to return, that of the best answer's window. Default: none."""


def answer_request(questions: Sequence[Pair], options: AnswerOptions) -> question_answering_pb2.AnswerRequest:
    """Return the message that asks for the answers to `questions`, each with its context."""
    options = read_options(options, AnswerOptions)
    overlap = options.get("overlap_tokens")
    return question_answering_pb2.AnswerRequest(
        model_name=options.get("model", ""),
        model_version=options.get("version", ""),
        inputs=[question_answering_pb2.QuestionInput(question=one, context=context) for one, context in questions],
        top_k=read_count(options.get("top_k"), "top_k"),
        max_answer_tokens=read_count(options.get("max_answer_tokens"), "max_answer_tokens"),
        handle_impossible_answer=options.get("handle_impossible_answer", False),
        align_to_words=options.get("align_to_words", True),
        window_tokens=read_count(options.get("window_tokens"), "window_tokens"),
        overlap_tokens=None if overlap is None else read_count(overlap, "overlap_tokens", least=0),
        attention=attention_message(options.get("attention")),
        priority=priority_message(options.get("priority")),
    )

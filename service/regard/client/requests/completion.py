"""What a caller may ask of a completion, and the messages that ask for it."""

from __future__ import annotations

from collections.abc import Sequence

from regard.client.generation import GenerationOptions, generation_message
from regard.client.requests.attention import AttentionOptions, attention_message
from regard.client.requests.inputs import read_text
from regard.client.requests.options import read_options
from regard.client.requests.values import Priority, priority_message
from regard.v1 import completion_pb2


class CompleteOptions(GenerationOptions, total=False):
    """The options of a completion, all optional: those of its search, and these."""

    model: str
    """The model's name. Default: the server's only completion model."""
    version: str
    """The model's version. Default: the highest."""
    attention: AttentionOptions
    """The attention to return. Default: none."""
    priority: Priority
    """Whose turn comes first among the requests that wait for a place. Default: normal."""
    templated: bool
    """Whether the checkpoint's chat template wrote the prompt, as `apply_chat_template` of Transformers does with
    `tokenize=False`: special tokens are read where they are written, and none is added. Default: False."""


def complete_request(prompts: Sequence[str], options: CompleteOptions) -> completion_pb2.CompleteRequest:
    """Return the message that asks for what follows `prompts`."""
    options = read_options(options, CompleteOptions)
    return completion_pb2.CompleteRequest(
        model_name=options.get("model", ""),
        model_version=options.get("version", ""),
        prompts=prompts,
        generation=generation_message(options),
        attention=attention_message(options.get("attention")),
        priority=priority_message(options.get("priority")),
        templated=options.get("templated", False),
    )


def stream_complete_request(prompt: str, options: CompleteOptions) -> completion_pb2.StreamCompleteRequest:
    """Return the message that asks for what follows `prompt`, token by token."""
    options = read_options(options, CompleteOptions)
    return completion_pb2.StreamCompleteRequest(
        model_name=options.get("model", ""),
        model_version=options.get("version", ""),
        prompts=[read_text(prompt, "prompt")],
        generation=generation_message(options),
        attention=attention_message(options.get("attention")),
        priority=priority_message(options.get("priority")),
        templated=options.get("templated", False),
    )

"""What a caller may ask of a comparison, and the message that asks for it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TypedDict

from regard.client.failures import InvalidTextError
from regard.client.requests.attention import AttentionOptions, attention_message
from regard.client.requests.inputs import Image, read_image, read_text
from regard.client.requests.options import read_options
from regard.client.requests.values import Priority, priority_message
from regard.v1 import similarity_pb2


class CompareOptions(TypedDict, total=False):
    """The options of a comparison, all optional."""

    model: str
    """The model's name. Default: the server's only similarity model."""
    version: str
    """The model's version. Default: the highest."""
    embeddings: bool
    """Whether embeddings are returned. Default: False."""
    priority: Priority
    """Whose turn comes first among the requests that wait for a place. Default: normal."""
    attention: AttentionOptions
    """The attention to return. Default: none."""
    truncate: bool
    """Whether a text longer than the model's positions is cut there. Default: it is refused."""


def compare_request(
    images: Iterable[Image], texts: Iterable[str], options: CompareOptions
) -> similarity_pb2.CompareRequest:
    """Return the message that asks for the comparison of `images` with `texts`."""
    options = read_options(options, CompareOptions)
    for name, given in (("images", images), ("texts", texts)):
        if isinstance(given, str | bytes | os.PathLike):
            raise InvalidTextError(f"{name} must be several, not one: give a list", field=name)
    return similarity_pb2.CompareRequest(
        model_name=options.get("model", ""),
        model_version=options.get("version", ""),
        images=[read_image(image, f"images[{index}]") for index, image in enumerate(images)],
        texts=[read_text(text, f"texts[{index}]") for index, text in enumerate(texts)],
        attention=attention_message(options.get("attention")),
        priority=priority_message(options.get("priority")),
        truncate=options.get("truncate", False),
        return_embeddings=options.get("embeddings", False),
    )

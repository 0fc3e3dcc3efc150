"""What a caller may ask of a caption, and the messages that ask for it."""

from __future__ import annotations

from collections.abc import Sequence

from regard.client.generation import GenerationOptions, generation_message
from regard.client.requests.attention import AttentionOptions, attention_message
from regard.client.requests.inputs import Image, read_image
from regard.client.requests.interventions import Intervention, intervention_messages
from regard.client.requests.options import read_options
from regard.client.requests.values import Priority, priority_message
from regard.v1 import caption_pb2


class CaptionOptions(GenerationOptions, total=False):
    """The options of a caption, all optional: those of its search, and these."""

    model: str
    """The model's name. Default: the server's only captioning model."""
    version: str
    """The model's version. Default: the highest."""
    attention: AttentionOptions
    """The attention to return. Default: none."""
    priority: Priority
    """Whose turn comes first among the requests that wait for a place. Default: normal."""
    interventions: Sequence[Intervention]
    """What is changed in the model's attention. Default: nothing."""


def caption_request(images: Sequence[bytes], options: CaptionOptions) -> caption_pb2.CaptionRequest:
    """Return the message that asks for the captions of `images`."""
    options = read_options(options, CaptionOptions)
    return caption_pb2.CaptionRequest(
        model_name=options.get("model", ""),
        model_version=options.get("version", ""),
        images=images,
        generation=generation_message(options),
        attention=attention_message(options.get("attention")),
        priority=priority_message(options.get("priority")),
        interventions=intervention_messages(options.get("interventions", ())),
    )


def stream_caption_request(image: Image, options: CaptionOptions) -> caption_pb2.StreamCaptionRequest:
    """Return the message that asks for the caption of `image`, token by token."""
    options = read_options(options, CaptionOptions)
    return caption_pb2.StreamCaptionRequest(
        model_name=options.get("model", ""),
        model_version=options.get("version", ""),
        images=[read_image(image, "image")],
        generation=generation_message(options),
        attention=attention_message(options.get("attention")),
        priority=priority_message(options.get("priority")),
        interventions=intervention_messages(options.get("interventions", ())),
    )

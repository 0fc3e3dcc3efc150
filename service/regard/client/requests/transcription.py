"""What a caller may ask of a transcription, and the messages that ask for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from regard.client.generation import GenerationOptions, generation_message
from regard.client.requests.attention import AttentionOptions, attention_message
from regard.client.requests.inputs import Sound, read_sound
from regard.client.requests.options import read_options
from regard.client.requests.values import Priority, enum_value, priority_message, read_frames
from regard.v1 import transcription_pb2


class TranscribeOptions(GenerationOptions, total=False):
    """The options of a transcription, all optional: those of its search, and these."""

    model: str
    """The model's name. Default: the server's only model of speech."""
    version: str
    """The model's version. Default: the highest."""
    language: str
    """The code of the language that is spoken, such as "en". Default: it is found in the first window."""
    task: Literal["transcribe", "translate"]
    """Whether to write what is said, or what it means in English. Default: what is said."""
    timestamps: bool
    """Whether the model says when each segment begins and ends. Default: segments are windows."""
    attention: AttentionOptions
    """The attention to return with each window. Default: none."""
    priority: Priority
    """Whose turn comes first among the requests that wait for a place. Default: normal."""
    align_att_frames: int
    """Of a stream: a token that attends most to one of so many last frames of the sound isn't safe to emit."""


def transcribe_request(
    sounds: Sequence[transcription_pb2.AudioInput], options: TranscribeOptions
) -> transcription_pb2.TranscribeRequest:
    """Return the message that asks for the transcriptions of `sounds`."""
    options = read_options(options, TranscribeOptions)
    read_frames(options.get("align_att_frames"), streaming=False)
    return transcription_pb2.TranscribeRequest(
        model_name=options.get("model", ""),
        model_version=options.get("version", ""),
        inputs=sounds,
        language=options.get("language", ""),
        task=_task(options),
        timestamps=options.get("timestamps", False),
        generation=generation_message(options),
        attention=attention_message(options.get("attention")),
        priority=priority_message(options.get("priority")),
    )


def stream_transcribe_request(sound: Sound, options: TranscribeOptions) -> transcription_pb2.StreamTranscribeRequest:
    """Return the message that asks for the transcription of `sound`, token by token."""
    options = read_options(options, TranscribeOptions)
    return transcription_pb2.StreamTranscribeRequest(
        model_name=options.get("model", ""),
        model_version=options.get("version", ""),
        inputs=[read_sound(sound, "sound")],
        language=options.get("language", ""),
        task=_task(options),
        timestamps=options.get("timestamps", False),
        generation=generation_message(options),
        attention=attention_message(options.get("attention")),
        priority=priority_message(options.get("priority")),
        align_att_frames=read_frames(options.get("align_att_frames")),
    )


def _task(options: TranscribeOptions) -> transcription_pb2.TranscriptionTask.ValueType:
    if "task" not in options:
        return transcription_pb2.TRANSCRIPTION_TASK_UNSPECIFIED
    return enum_value(transcription_pb2.TranscriptionTask.Value, "TRANSCRIPTION_TASK_", options["task"], "task")

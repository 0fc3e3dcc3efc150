"""`regard transcribe`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from regard.cli import options
from regard.cli.attention import ATTENTION
from regard.cli.files import read_file
from regard.cli.flags import taking
from regard.cli.screen import refuse, streamed_line
from regard.cli.search import SEARCH

if TYPE_CHECKING:
    from regard.client import AttentionOptions, Client, GenerationOptions, TranscribeOptions, Transcription


@taking(ATTENTION, SEARCH)
def transcribe(
    sounds: Annotated[
        list[Path],
        typer.Argument(metavar="SOUND...", help="Audio files: WAV, FLAC, Ogg, MP3 or AIFF.", show_default=False),
    ],
    language: Annotated[
        str, typer.Option("--language", metavar="CODE", help="What is spoken, such as en. Default: it is found.")
    ] = "",
    task: Annotated[
        Literal["transcribe", "translate"] | None,
        typer.Option("--task", help="What to write: what is said, or what it means in English.", show_default=False),
    ] = None,
    timestamps: Annotated[
        bool, typer.Option("--timestamps", "-t", help="Print each segment with when it begins and ends.")
    ] = False,
    as_json: options.JsonOption = False,
    stream: Annotated[bool, typer.Option("--stream", help="Print each token as it is made.")] = False,
    model: options.ModelOption = "",
    priority: options.PriorityOption = None,
    server: options.ServerOption = options.DEFAULT_SERVER,
    timeout_s: options.TimeoutOption = 60.0,
    *,
    attention: AttentionOptions | None,
    search: GenerationOptions,
) -> None:
    """Write down what is said in a sound, or in each of several.

    Several sounds get one line each: the file's name and, after a tab, what is said. One that can't be read
    is told of on stderr, and the others are transcribed. With --attention, a grid shows when in the sound the
    model listened while it wrote each word. What is longer than the model hears at once (30 s for Whisper) is
    heard in windows, one after the other.

    [bold]Examples[/bold]
    [cyan]regard transcribe speech.wav[/cyan]
    [cyan]regard transcribe speech.wav --timestamps --language en[/cyan]
    [cyan]regard transcribe discours.mp3 --task translate[/cyan]
    [cyan]regard transcribe speech.wav --attention[/cyan]
    [cyan]regard transcribe calls/*.flac > calls.tsv[/cyan]
    [cyan]regard transcribe speech.wav --timestamps --json | jq '.segments[]'[/cyan]
    """
    from regard.client import Client, TranscribeOptions

    if stream and len(sounds) > 1:
        refuse("--stream takes one sound; several are answered as they are done")
    name, version = options.name_and_version(model)
    # mypy takes no supertype's items: an unknown one could have a name of ours, and another type
    wanted = TranscribeOptions(model=name, version=version, **search)  # type: ignore[typeddict-item]
    wanted["language"], wanted["timestamps"] = language, timestamps
    if task:
        wanted["task"] = task
    if attention:
        wanted["attention"] = attention
    if priority:
        wanted["priority"] = priority
    every_layer = bool(attention and attention.layers)
    with Client(server, timeout_s=timeout_s, inputs_per_request=1) as client:
        if stream:
            _stream(client, sounds[0], wanted, as_json=as_json, every_layer=every_layer)
        else:
            from regard.cli.answers import answer_files

            answer_files(
                sounds,
                "sounds",
                lambda contents: client.transcribe_each(contents, **wanted),
                lambda answer, name, _: _show(answer, name, timestamps=timestamps, every_layer=every_layer),
                as_json=as_json,
            )


def _show(answer: Transcription, name: str, *, timestamps: bool, every_layer: bool) -> None:
    """Print the text on one line, or each segment on a line of its own; then the attention of every window."""
    before = f"{name}\t" if name else ""
    if timestamps:
        for segment in answer.segments:
            print(f"{before}{_time(segment.start_s)} {_time(segment.end_s)}\t{segment.text.strip()}", flush=True)
    else:
        print(f"{before}{answer.text.strip()}", flush=True)
    if any(window.attention for window in answer.windows):
        from regard.cli.screen import OUT
        from regard.cli.views import transcription_view

        OUT.print(transcription_view(answer, every_layer=every_layer))


def _time(seconds: float) -> str:
    """Return a time as minutes and seconds, such as 01:02.50."""
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes):02d}:{rest:05.2f}"


def _stream(client: Client, file: Path, wanted: TranscribeOptions, *, as_json: bool, every_layer: bool) -> None:
    from regard.cli.records import answer_record, plain, print_record
    from regard.client import Transcription

    with streamed_line(as_json=as_json) as show:
        for event in client.stream_transcribe(read_file(file), **wanted):
            done = isinstance(event, Transcription)
            if as_json:
                print_record(answer_record(str(file), event) if done else {"delta": plain(event)})
            elif not isinstance(event, Transcription):
                show(event.text)
            elif wanted["timestamps"] or any(window.attention for window in event.windows):
                print("\n")
                _show(event, "", timestamps=wanted["timestamps"], every_layer=every_layer)

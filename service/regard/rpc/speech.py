"""What a request asks of a model of speech: the tokens that its texts begin with, and their times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from regard.audio.segments import Times
from regard.errors import EngineError, InvalidInputError
from regard.manifest import Manifest, TranscriptionSpec
from regard.v1 import transcription_pb2

AnyTranscribeRequest = transcription_pb2.TranscribeRequest | transcription_pb2.StreamTranscribeRequest

_TASKS: Mapping[int, Literal["transcribe", "translate"]] = {
    transcription_pb2.TRANSCRIPTION_TASK_TRANSCRIBE: "transcribe",
    transcription_pb2.TRANSCRIPTION_TASK_TRANSLATE: "translate",
}
_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Speech:
    """How the texts of a request begin: `prompt`, whose first token is one of `choices`, if there are any."""

    spec: TranscriptionSpec
    prompt: tuple[int, ...]
    choices: tuple[int, ...]
    timestamps: bool

    @property
    def times(self) -> Times | None:
        """The tokens that are times, if times were asked for."""
        before = self.spec.no_timestamps_token_id
        return Times(before + 1, self.spec.seconds_per_timestamp) if self.timestamps and before is not None else None

    @property
    def options(self) -> dict[str, Any]:
        """What the search must know of it, by the names of its options."""
        given: dict[str, Any] = {"prefix_token_ids": self.prompt, "prefix_choices": self.choices}
        if self.times is not None:
            given["first_timestamp_token_id"] = self.times.first_token_id
            given["max_initial_timestamp_index"] = self.spec.max_initial_timestamp_index
        return given

    def language_of(self, token_id: int) -> str:
        """Return the code of the language that a text's first token names; empty for a model of one."""
        return next((code for code, token in self.spec.languages.items() if token == token_id), "")


def speech_of(request: AnyTranscribeRequest, manifest: Manifest) -> Speech:
    """Return how the texts of a request begin.

    Raises `InvalidInputError`, naming the field, for a language, a task or times that the model lacks,
    and for options of generation that would say the same again.
    """
    spec = manifest.transcription
    if spec is None:
        raise EngineError(f"package {manifest.name}/{manifest.version} does not say how to transcribe")
    for name in ("target_language", "forced_bos_token_id"):
        if any(field.name == name for field, _ in request.generation.ListFields()):
            field = f"generation.{name}"
            raise InvalidInputError(f"{field} can't be set for speech: set language, and task", field=field)
    if request.timestamps and spec.no_timestamps_token_id is None:
        raise InvalidInputError(f"timestamps: model {manifest.name} can't tell times", field="timestamps")
    language, task = _language(request, spec, manifest.name), _task(request, spec, manifest.name)
    choices = tuple(sorted(spec.languages.values())) if language is None else ()
    head = (language,) if language is not None else choices[:1] or spec.prompt_token_ids
    silent = () if request.timestamps else (spec.no_timestamps_token_id,)
    prompt = (*head, task, *silent)
    return Speech(spec, tuple(token for token in prompt if token is not None), choices, request.timestamps)


def _language(request: AnyTranscribeRequest, spec: TranscriptionSpec, model: str) -> int | None:
    code = request.language or spec.language
    if code is None:
        return None
    if code not in spec.languages:
        codes = sorted(spec.languages)
        rest = f" and {len(codes) - _EXAMPLES} more" if len(codes) > _EXAMPLES else ""
        known = f"knows {', '.join(codes[:_EXAMPLES])}{rest}" if codes else "has one language: leave it out"
        raise InvalidInputError(f"language is {code[:20]!r}; model {model} {known}", field="language")
    return spec.languages[code]


def _task(request: AnyTranscribeRequest, spec: TranscriptionSpec, model: str) -> int | None:
    if request.task and request.task not in _TASKS:
        raise InvalidInputError(f"task has no value {request.task}", field="task")
    task = _TASKS.get(request.task, spec.task)
    if request.task and task not in spec.tasks and (spec.tasks or task != spec.task):
        raise InvalidInputError(f"task is {task}, which model {model} was not taught", field="task")
    return spec.tasks.get(task)

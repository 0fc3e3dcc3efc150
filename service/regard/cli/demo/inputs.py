"""The demonstration's fixed inputs: held out from the checkpoints' training, with their answers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Sentence:
    """An English sentence and every French translation that the corpus gives it."""

    source: str
    references: tuple[str, ...]
    drawn: bool


@dataclass(frozen=True, slots=True)
class Scene:
    """A drawn scene, as the bytes of its image file, and the captions that describe it."""

    file: str
    image: bytes
    references: tuple[str, ...]
    drawn: bool


@dataclass(frozen=True, slots=True)
class Utterance:
    """What someone asks for, and the class that it belongs to."""

    text: str
    label: str


@dataclass(frozen=True, slots=True)
class Inputs:
    """What is asked, and of which models."""

    translator: str
    sentences: tuple[Sentence, ...]
    captioner: str
    scenes: tuple[Scene, ...]
    classifier: str
    utterances: tuple[Utterance, ...]


def load_inputs() -> Inputs:
    """Read the inputs that are packaged beside this module."""
    here = files(__package__)
    stored = json.loads(here.joinpath("inputs.json").read_text("utf-8"))
    translation, captioning, classification = (stored[name] for name in ("translation", "captioning", "classification"))
    return Inputs(
        translator=translation["model"],
        sentences=tuple(
            Sentence(one["source"], tuple(one["references"]), drawn=index in translation["drawn"])
            for index, one in enumerate(translation["examples"])
        ),
        captioner=captioning["model"],
        scenes=tuple(
            Scene(
                one["file"],
                here.joinpath("scenes", one["file"]).read_bytes(),
                tuple(one["references"]),
                drawn=index in captioning["drawn"],
            )
            for index, one in enumerate(captioning["examples"])
        ),
        classifier=classification["model"],
        utterances=tuple(Utterance(one["text"], one["label"]) for one in classification["examples"]),
    )

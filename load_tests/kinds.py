"""What is asked: three tasks, each with and without attention, of inputs such as people have."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from regard.cli.demo.inputs import load_inputs
from regard.client.requests import AttentionOptions, caption_request, classify_request, translate_request
from regard.v1 import caption_pb2, classification_pb2, translation_pb2

TASKS = ("translate", "classify", "caption")
CAPTIONER = "demo-scenes"
SCENES = 24
DRAWING = Path(__file__).parents[1] / "export" / "training" / "scenes.py"
EVERY_HEAD = AttentionOptions()
"""Every layer and head, of cross-attention where the task has it and of self-attention where it hasn't."""

Message = translation_pb2.TranslateRequest | classification_pb2.ClassifyRequest | caption_pb2.CaptionRequest


@dataclass(frozen=True, slots=True)
class Kind:
    """A task, and whether its attention is asked for."""

    task: str
    attention: bool

    def __str__(self) -> str:
        return f"{self.task} + attention" if self.attention else self.task


@dataclass(frozen=True, slots=True)
class Inputs:
    """What the requests are about: texts to translate, utterances to classify, PNG files to caption."""

    translator: str
    texts: Sequence[str]
    classifier: str
    utterances: Sequence[str]
    images: Sequence[bytes]


class Mix:
    """Draws one request after the other, the same ones from the same seed.

    Tasks are drawn evenly, and so are a task's inputs; `attention_share` of the requests ask for attention. Each is
    drawn independently of the last, so that from a Poisson process every kind comes as one of its own.
    """

    def __init__(self, inputs: Inputs, attention_share: float, seed: int) -> None:
        self._inputs = inputs
        self._attention_share = attention_share
        self._random = random.Random(seed)

    def draw(self) -> tuple[Kind, Message]:
        """Return a request, and of which kind it is."""
        kind = Kind(self._random.choice(TASKS), self._random.random() < self._attention_share)
        return kind, self._request(kind)

    def one_of_each(self) -> list[tuple[Kind, Message]]:
        """Return a request of every kind that there is to draw."""
        return [(kind, self._request(kind)) for kind in kinds(self._attention_share)]

    def _request(self, kind: Kind) -> Message:
        inputs, choice = self._inputs, self._random.choice
        attention: Any = {"attention": EVERY_HEAD} if kind.attention else {}
        match kind.task:
            case "translate":
                return translate_request([choice(inputs.texts)], attention | {"model": inputs.translator})
            case "classify":
                return classify_request([choice(inputs.utterances)], attention | {"model": inputs.classifier})
            case _:
                return caption_request([choice(inputs.images)], attention | {"model": CAPTIONER})


def kinds(attention_share: float) -> list[Kind]:
    """Return the kinds that a mix of this share draws from."""
    asked = [attention for attention, share in ((False, 1 - attention_share), (True, attention_share)) if share > 0]
    return [Kind(task, attention) for task in TASKS for attention in asked]


def load() -> Inputs:
    """Return the demonstration's inputs, and scenes drawn anew.

    Texts to translate are one to three sentences; utterances are those of the classes and, outside of them, the
    sentences.
    """
    given = load_inputs()
    sentences = [sentence.source for sentence in given.sentences]
    return Inputs(
        translator=given.translator,
        texts=[
            " ".join(sentences[first : first + count])
            for count in (1, 2, 3)
            for first in range(len(sentences) - count + 1)
        ],
        classifier=given.classifier,
        utterances=[*(utterance.text for utterance in given.utterances), *sentences],
        images=_draw_scenes(),
    )


def _draw_scenes() -> list[bytes]:
    with TemporaryDirectory() as directory:
        drawing = [sys.executable, str(DRAWING), directory, "--count", str(SCENES)]
        subprocess.run(drawing, check=True, stdout=subprocess.DEVNULL)
        return [file.read_bytes() for file in sorted(Path(directory).glob("*.png"))]

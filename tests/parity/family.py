"""A model in both worlds: its package at work in the engine, and the eager model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, VisionEncoderDecoderModel

from regard.config import EngineSettings
from regard.engine.observer import SilentObserver
from regard.engine.request import GenerateRequest, Generation
from regard.engine.search.options import GenerationOptions, options_of
from regard.engine.source import Pixels, Source, Tokens
from regard.manifest import Package, Task, load_package
from regard.text.codec import TextCodec
from regard.text.stops import StopStrings
from regard.worker import Worker

from .option_sets import MAX_NEW_TOKENS, OPTION_SETS, Draw
from .reference import Arguments, Reference

LONGEST_SOURCE = 50
ANCHOR = "abcdef"
"""A text behind which Transformers decodes every token to know its text; a tokenizer must be able to write it."""


@dataclass(frozen=True, slots=True, eq=False)
class Ask:
    """One request: its source and what it gives of options, for the engine and for the eager model."""

    name: str
    source: Source
    arguments: Arguments
    given: Mapping[str, Any]
    options: GenerationOptions


class Family:
    """One model, its package at work in `worker`."""

    def __init__(self, package: Package, checkpoint: Path, worker: Worker) -> None:
        assert package.manifest.generation is not None
        self.spec = package.manifest.generation
        self.worker = worker
        self._codec = TextCodec(package)
        self._image = package.manifest.image
        self._completes = package.manifest.task is Task.COMPLETION
        kind: Any = VisionEncoderDecoderModel if self._image else AutoModelForSeq2SeqLM
        if package.manifest.reader == "prefill":
            kind = AutoModelForCausalLM
        model = kind.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="eager")
        tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        if tokenizer.unk_token_id in tokenizer(ANCHOR, add_special_tokens=False).input_ids:
            tokenizer.add_tokens([ANCHOR])
        self.reference = Reference(model, self.spec, tokenizer)

    def ask(self, name: str, random: np.random.Generator) -> Ask:
        """Return a request of an option set, for a random source of a random length."""
        return self.ask_with(name, OPTION_SETS[name](Draw(random, self.spec)), random)

    def ask_with(self, name: str, given: Mapping[str, Any], random: np.random.Generator) -> Ask:
        """Return a request of certain options, for a random source."""
        source, arguments = self._source(random)
        given = {"max_new_tokens": MAX_NEW_TOKENS} | given
        if self._completes:  # generate() forces a first token only where nothing is before it
            given = {option: value for option, value in given.items() if option != "forced_bos_token_id"}
        return Ask(name, source, arguments, given, self.options(given, len(self.reference.prompt(arguments))))

    def options(self, given: Mapping[str, Any], prompt_tokens: int = 1) -> GenerationOptions:
        """Return what the engine is given for the options of a request."""
        options = {name: value for name, value in given.items() if name != "stop_strings"}
        if "stop_strings" in given:
            options["ends_at_stop"] = self._codec.ends_at_stop(StopStrings(given["stop_strings"]))
        return options_of(self.spec, options, prompt_tokens)

    async def answer(self, source: Source, options: GenerationOptions) -> Generation:
        """Return the engine's answer."""
        answer = await self.worker.run(GenerateRequest(source, options))
        assert isinstance(answer, Generation)
        return answer

    async def complete(self, prompt: npt.NDArray[np.int64], given: Mapping[str, Any]) -> Generation:
        """Return the engine's answer to a prompt [S]."""
        return await self.answer(Tokens(prompt), self.options(given, len(prompt)))

    def _source(self, random: np.random.Generator) -> tuple[Source, Arguments]:
        if self._image:
            pixels = random.normal(0, 1, (3, self._image.height, self._image.width)).astype(np.float32)
            return Pixels(pixels, self._image.positions), {"pixel_values": torch.from_numpy(pixels)[None]}
        words = random.integers(4, self.spec.vocabulary_size, random.integers(1, LONGEST_SOURCE))
        ids = words if self._completes else np.array([*words, self.spec.eos_token_ids[0]])
        return Tokens(ids), {"input_ids": torch.from_numpy(ids)[None]}


@contextmanager
def served(checkpoint: Path, package_directory: Path) -> Iterator[Family]:
    """Let a worker run a checkpoint's package."""
    package = load_package(package_directory)
    worker = Worker(package, EngineSettings(), SilentObserver())
    worker.start()
    try:
        yield Family(package, checkpoint, worker)
    finally:
        worker.stop()

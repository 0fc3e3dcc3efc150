"""A module, and what its package must say of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property

import torch
from tokenizers import Tokenizer

from regard.manifest import ClassificationSpec, GenerationSpec, ImageSpec, SourceSpec, Task, TextSpec
from regard_export.errors import CheckpointError
from regard_export.inputs import ImageInputs, Inputs, TextInputs
from regard_export.modules.protocol import AttentiveClassifier, AttentiveGenerator

TOKENIZER_FILE = "tokenizer.json"


@dataclass(frozen=True)
class Blueprint:
    """A module that follows one of the protocols, what it reads and what it gives.

    A reader of texts has `tokenizer` and `max_source_tokens`, one of images `image`; a writer has
    `tokenizer` and `generation`, a classifier `labels`.
    """

    module: torch.nn.Module
    tokenizer: Tokenizer | None = None
    max_source_tokens: int | None = None
    pad_token_id: int = 0
    image: ImageSpec | None = None
    generation: GenerationSpec | None = None
    labels: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        """Refuse, with `CheckpointError`, what fits neither protocol or lacks a part."""
        name = type(self.module).__name__
        if not isinstance(self.module, AttentiveClassifier | AttentiveGenerator):
            raise CheckpointError(f"{name} has neither `classify` nor `encode` and `step`; see regard_export.modules")
        if (self.image is None) == (self.max_source_tokens is None):
            raise CheckpointError(
                f"{name}: give `image` for a reader of images, or `max_source_tokens` for one of texts"
            )
        if (self.image is None or self.generates) and self.tokenizer is None:
            raise CheckpointError(f"{name} reads or writes text: give its `tokenizer`")
        if self.generates != (self.generation is not None) or self.generates == bool(self.labels):
            raise CheckpointError(f"{name}: give `generation` for what writes tokens, `labels` for what names classes")

    @property
    def generates(self) -> bool:
        """Whether the module writes tokens."""
        return isinstance(self.module, AttentiveGenerator)

    @property
    def task(self) -> Task:
        """What the package does."""
        if not self.generates:
            return Task.CLASSIFICATION
        return Task.TRANSLATION if self.image is None else Task.CAPTIONING

    @property
    def text(self) -> TextSpec | None:
        """How text becomes tokens."""
        if self.tokenizer is None:
            return None
        return TextSpec(
            tokenizer_file=TOKENIZER_FILE, max_source_tokens=self.max_source_tokens, pad_token_id=self.pad_token_id
        )

    @property
    def audio(self) -> None:
        """None: no protocol is for listeners."""

    @property
    def transcription(self) -> None:
        """None, as `audio` is."""

    @property
    def classification(self) -> ClassificationSpec | None:
        """The classes."""
        if not self.labels:
            return None
        return ClassificationSpec(labels=self.labels, out_of_scope_label=None, out_of_scope_threshold=None)

    @property
    def similarity(self) -> None:
        """Nothing: a module classifies or writes."""

    @cached_property
    def source(self) -> SourceSpec:
        """Where the package comes from: the module's class, and the SHA-256 of its weights."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.module.state_dict().items()):
            digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        kind = type(self.module)
        return SourceSpec(
            architecture=kind.__name__, model_type=kind.__module__.rpartition(".")[2], weights_sha256=digest.hexdigest()
        )

    @property
    def inputs(self) -> Inputs:
        """What the graphs read, and samples of it."""
        if self.image is not None:
            return ImageInputs(self.image)
        assert self.tokenizer is not None and self.max_source_tokens is not None
        return TextInputs(self.tokenizer.get_vocab_size(), self.max_source_tokens, self.pad_token_id, end_token_id=None)

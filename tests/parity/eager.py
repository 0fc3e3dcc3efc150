"""The eager PyTorch model of a package: what it computes for one source alone, and what its `generate()` finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import transformers
from transformers import GenerationConfig, GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

from regard.engine.source import Pixels, Sound, Source, Tokens
from regard.manifest import GenerationSpec, Manifest
from regard_export.families import family_of
from regard_export.families.base import logits_of, unused_positions
from regard_export.modules import Blueprint

from .reference import Arguments, Expected, Reference


@dataclass(frozen=True, slots=True)
class Computed:
    """`logits` [T, V] of a generator, [C] or [S, C] of a classifier, or an embedding [E]; `maps` are by taps' names.

    Those are the weights [H, Q, K].
    """

    logits: torch.Tensor
    maps: Mapping[str, torch.Tensor]


class Eager(Protocol):
    """An eager model."""

    vocabulary_size: int
    """How many tokens a source is written in; 0 if it is an image."""

    def arguments(self, source: Source) -> Arguments:
        """Return what the model is called with for a source."""

    def prompt(self, source: Arguments) -> list[int]:
        """Return what a generator reads before its first token."""

    def compute(self, source: Arguments, token_ids: Sequence[int] = ()) -> Computed:
        """Run the model; a generator on what stands before each of `token_ids`."""

    def search(self, source: Arguments, given: Mapping[str, Any]) -> Expected:
        """Return what `generate()` finds for the options that a request has given."""


class EagerCheckpoint:
    """A checkpoint in Transformers, loaded by the class that its package names."""

    def __init__(self, checkpoint: Path, manifest: Manifest) -> None:
        kind = getattr(transformers, manifest.source.architecture)
        self._model = kind.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="eager").eval()
        self._family = family_of(manifest.source.model_type)
        self._taps = manifest.taps
        self._compares = manifest.similarity is not None
        self._spec = manifest.generation
        self._prefills = manifest.reader == "prefill"
        reads = manifest.text is not None and (self._compares or not (manifest.image or manifest.audio))
        reader: Any = self._model.get_submodule("text_model") if self._compares else self._model
        self.vocabulary_size = reader.get_input_embeddings().num_embeddings if reads else 0
        self._reference = Reference(self._model, self._spec) if self._spec else None

    def arguments(self, source: Source) -> Arguments:
        """Name the source as Transformers does."""
        names = {Pixels: "pixel_values", Tokens: "input_ids", Sound: "input_features"}
        return {names[type(source)]: _tensor(source)}

    def search(self, source: Arguments, given: Mapping[str, Any]) -> Expected:
        """Return what `generate()` finds."""
        assert self._reference is not None
        return self._reference.search(source, given)

    def prompt(self, source: Arguments) -> list[int]:
        """Return what is to be completed, or the start token."""
        assert self._reference is not None
        return self._reference.prompt(source)

    @torch.no_grad()
    def compute(self, source: Arguments, token_ids: Sequence[int] = ()) -> Computed:
        """Run the model as its family is called."""
        if self._compares:
            return self._embedded(source)
        if self._reference is None or self._spec is None:
            output = self._model(**source, output_attentions=True)
            return Computed(logits_of(output)[0], self._maps({("encoder", "self"): output.attentions}))
        if self._prefills:
            return self._completed(self._reference, source, token_ids)
        read = torch.tensor([[self._spec.start_token_id, *token_ids[:-1]]])
        output = self._family.decode(self._model, read, source=source, output_attentions=True, **self._places(read))
        stacks = {("decoder", "self"): output.decoder_attentions, ("decoder", "cross"): output.cross_attentions}
        if any(tap.stack == "encoder" for tap in self._taps):
            stacks["encoder", "self"] = self._family.encode(self._model, source, output_attentions=True).attentions
        return Computed(output.logits[0], self._maps(stacks))

    @torch.no_grad()
    def score(self, image: Arguments, text: Arguments) -> torch.Tensor:
        """Return the logit [1, 1] of an image and a text."""
        logit: torch.Tensor = self._model(**image, **text).logits_per_image
        return logit

    def _embedded(self, source: Arguments) -> Computed:
        """Run one of two encoders whose answers are compared."""
        stack = "image_encoder" if "pixel_values" in source else "text_encoder"
        output: Any = self._family.embed(self._model, source, output_attentions=True)
        maps = {f"{stack}.self.{layer}": weights[0] for layer, weights in enumerate(output.attentions)}
        return Computed(torch.nn.functional.normalize(output.pooler_output[0], dim=-1), maps)

    def _places(self, read: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the positions of `read` [1, T] as `generate()` has them, for those that begin behind a padding's.

        Read at once, RoBERTa's kind counts no padding; `generate()` reads token by token, and then all that
        is in the cache counts.
        """
        assert self._spec is not None
        first = unused_positions(self._family.decoder(self._model))
        if not first:
            return {}
        places = torch.arange(first, first + read.shape[1]).expand_as(read)
        return {"decoder_position_ids": places.where(read != first - 1, first - 1)}

    def _completed(self, reference: Reference, source: Arguments, token_ids: Sequence[int]) -> Computed:
        """Run a model that has only a decoder: it attends to its source as to what it wrote."""
        output = reference.answer(source, token_ids[:-1], output_attentions=True)
        before = output.attentions[0].shape[-1] - len(token_ids)
        prompt = before + ("input_ids" in source)
        maps = {}
        for layer, (weights,) in enumerate(output.attentions):
            maps[f"decoder.self.{layer}"] = weights[:, before:]
            maps[f"prompt.self.{layer}"] = weights[:, :prompt, :prompt]
        if any(tap.stack == "encoder" for tap in self._taps):
            seen = self._family.encode(self._model, source, output_attentions=True).attentions
            maps |= {f"encoder.self.{layer}": weights[0] for layer, weights in enumerate(seen)}
        return Computed(output.logits[0][-len(token_ids) :], maps)

    def _maps(self, stacks: Mapping[tuple[str, str], Any]) -> dict[str, torch.Tensor]:
        return {tap.name: stacks[tap.stack, tap.kind][tap.layer][0] for tap in self._taps}


class EagerModule:
    """A module of plain PyTorch."""

    def __init__(self, blueprint: Blueprint) -> None:
        self._module: Any = blueprint.module.eval()
        self.vocabulary_size = 0 if blueprint.image or not blueprint.tokenizer else blueprint.tokenizer.get_vocab_size()
        self._spec = blueprint.generation
        self._stepping = _Stepping(self._module, self._spec) if self._spec else None

    def arguments(self, source: Source) -> Arguments:
        """Give the source as it is."""
        return {"source": _tensor(source)}

    def prompt(self, source: Arguments) -> list[int]:
        """Return the start token."""
        assert self._spec is not None
        return [self._spec.start_token_id]

    def search(self, source: Arguments, given: Mapping[str, Any]) -> Expected:
        """Return what `generate()` finds when it lets the module take its steps."""
        assert self._spec is not None
        return Reference(self._stepping, self._spec).search(source, given)

    @torch.no_grad()
    def compute(self, source: Arguments, token_ids: Sequence[int] = ()) -> Computed:
        """Run the module, step by step if it takes steps."""
        tensor = source["source"]
        if self._stepping is None or self._spec is None:
            logits, weights = self._module.classify(tensor, _length(tensor))
            return Computed(logits[0], {f"encoder.self.{layer}": one[0] for layer, one in enumerate(weights)})
        read = torch.tensor([[self._spec.start_token_id, *token_ids[:-1]]])
        logits, weights = self._stepping.steps(tensor, read)
        return Computed(logits[0], {"decoder.cross.0": weights[0]})


class _AsItIs(torch.nn.Module):
    """An encoder that hands the source on."""

    def forward(self, source: torch.Tensor, **_: Any) -> BaseModelOutput:
        """Return the source."""
        return BaseModelOutput(last_hidden_state=source)


class _Stepping(PreTrainedModel, GenerationMixin):
    """A module that writes, as a model that `generate()` takes: its source goes through as it is, to every step."""

    config_class = PretrainedConfig
    main_input_name = "source"

    def __init__(self, module: torch.nn.Module, spec: GenerationSpec) -> None:
        super().__init__(PretrainedConfig(is_encoder_decoder=True, vocab_size=spec.vocabulary_size))
        self.module: Any = module
        self.generation_config = GenerationConfig(
            decoder_start_token_id=spec.start_token_id,
            eos_token_id=list(spec.eos_token_ids),
            pad_token_id=spec.pad_token_id,
            use_cache=False,
        )

    def get_encoder(self, *_: Any, **__: Any) -> Any:
        """Return what lets the source alone."""
        return _AsItIs()

    def forward(
        self, decoder_input_ids: torch.Tensor, encoder_outputs: Any, source: None = None, **_: Any
    ) -> Seq2SeqLMOutput:
        """Write from the beginning; `source` is named for `generate()`, which asks what a model may be given."""
        logits, _weights = self.steps(encoder_outputs.last_hidden_state, decoder_input_ids)
        return Seq2SeqLMOutput(logits=logits)

    def steps(self, source: torch.Tensor, token_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the logits [N, T, V] and the weights [N, H, T, S] behind every one of `token_ids` [N, T]."""
        length = _length(source)
        memory, state = self.module.encode(source, length)
        logits, looked = [], []
        for column in token_ids.unbind(1):
            scores, state, weights = self.module.step(column, state, memory, length)
            logits.append(scores)
            looked.append(weights)
        return torch.stack(logits, 1), torch.stack(looked, 2)


def _tensor(source: Source) -> torch.Tensor:
    """Return a source as a batch of one."""
    match source:
        case Tokens(array) | Pixels(array) | Sound(array):
            return torch.from_numpy(array)[None]


def _length(source: torch.Tensor) -> torch.Tensor | None:
    """Return the lengths [R] of texts without padding; None of images."""
    return torch.full(source.shape[:1], source.shape[1], dtype=torch.int32) if source.dim() == 2 else None

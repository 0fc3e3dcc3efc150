"""A kind of model: how it is called, what it generates with, and what must change in it to be traced."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from transformers import GenerationConfig, PretrainedConfig, PreTrainedModel
from transformers.cache_utils import Cache, EncoderDecoderCache
from transformers.modeling_outputs import (
    BaseModelOutput,
    BaseModelOutputWithPooling,
    CausalLMOutputWithPast,
    Seq2SeqLMOutput,
)
from transformers.utils.generic import ModelOutput

from regard_export.attention import IMPLEMENTATION


class Family:
    """A kind of model that follows Transformers' conventions.

    Those that have an encoder are called with `encode` and `decode`; those that have only a decoder
    with `prefill`, `step` and `complete`.
    """

    reads_images_itself = False
    """Whether images are for the decoder to read, before its text, as if they were the text's beginning."""
    reads_padding = False
    """Whether texts are padded to one length, and padding is read like any other token."""

    def pools(self, model: PreTrainedModel) -> bool:
        """Tell whether the answer about an image is gathered by a query of its own, in one layer behind the others."""
        return False

    def attends_to_source(self, config: PretrainedConfig) -> bool:
        """Tell whether the model has a decoder with cross-attention."""
        return bool(config.is_encoder_decoder)

    def adapted(self, model: PreTrainedModel) -> AbstractContextManager[object]:
        """Change what can't be traced as it is, until the context ends."""
        return nullcontext()

    def max_positions(self, config: PretrainedConfig) -> int | None:
        """Return how many positions a stack's table has; None if positions are relative, without a table."""
        positions = getattr(config, "max_position_embeddings", None)
        return None if positions is None else int(positions)

    def generation(self, model: PreTrainedModel) -> GenerationConfig:
        """Return what `generate()` obeys."""
        return model.generation_config

    def decoder(self, model: PreTrainedModel) -> torch.nn.Module:
        """Return the stack that writes."""
        stack: torch.nn.Module = model.get_decoder()
        return stack

    def encode(self, model: PreTrainedModel, source: Mapping[str, torch.Tensor], **options: Any) -> BaseModelOutput:
        """Run the stack that reads the source, up to its hidden states [R, S, W]."""
        reader: Any = model.get_encoder() if model.config.is_encoder_decoder else model.base_model
        output: BaseModelOutput = reader(**source, **options)
        return output

    def embed(
        self, model: PreTrainedModel, source: Mapping[str, torch.Tensor], **options: Any
    ) -> BaseModelOutputWithPooling:
        """Run what reads the source, of a model that compares texts with images; `pooler_output` is the embedding."""
        whole: Any = model
        read = whole.get_image_features if "pixel_values" in source else whole.get_text_features
        output: BaseModelOutputWithPooling = read(**source, **options)
        return output

    def decode(
        self,
        model: PreTrainedModel,
        token_ids: torch.Tensor,
        *,
        source: Mapping[str, torch.Tensor] | None = None,
        hidden: torch.Tensor | None = None,
        cache: Cache | None = None,
        positions: torch.Tensor | None = None,
        **options: Any,
    ) -> Seq2SeqLMOutput:
        """Run the whole model on target tokens [N, T], from its `source` or the encoder's `hidden` states.

        `positions` [N, T] counts the target's tokens from 0; only models that can't tell it from the
        cache look at it.
        """
        arguments: dict[str, Any] = dict(source or {})
        if hidden is not None:
            arguments["encoder_outputs"] = BaseModelOutput(last_hidden_state=hidden)
        if positions is not None and "decoder_position_ids" in inspect.signature(model.forward).parameters:
            arguments["decoder_position_ids"] = positions
        output: Seq2SeqLMOutput = model(
            **arguments, decoder_input_ids=token_ids, past_key_values=cache, use_cache=cache is not None, **options
        )
        return output

    def generate(
        self, model: PreTrainedModel, source: Mapping[str, torch.Tensor], prompt: Sequence[int], **options: Any
    ) -> Any:
        """Call `generate()` for texts that begin with `prompt`, the start token first."""
        searching: Any = model
        return searching.generate(**source, **options)

    def prefill(self, model: PreTrainedModel, source: Mapping[str, torch.Tensor], cache: Any) -> None:
        """Let a decoder read its source, without padding, into an empty cache."""
        model(**source, past_key_values=cache, use_cache=True)

    def step(
        self, model: PreTrainedModel, token_ids: torch.Tensor, cache: Any, positions: torch.Tensor
    ) -> CausalLMOutputWithPast:
        """Let a decoder read one more token of every row [N, 1], at `positions` [N, 1] of its text."""
        output: CausalLMOutputWithPast = model(
            input_ids=token_ids, position_ids=positions, past_key_values=cache, use_cache=True
        )
        return output

    def complete(
        self, model: PreTrainedModel, source: Mapping[str, torch.Tensor], token_ids: torch.Tensor, **options: Any
    ) -> CausalLMOutputWithPast:
        """Run a decoder on its source, without padding, and the tokens [N, T] behind it."""
        output: CausalLMOutputWithPast = model(input_ids=torch.cat([source["input_ids"], token_ids], 1), **options)
        return output


def logits_of(output: ModelOutput) -> torch.Tensor:
    """Return the logits of a model that answers in one step: [R, C], [R, S, C], or of an answer's ends [R, S, 2]."""
    if "start_logits" in output:
        return torch.stack((output["start_logits"], output["end_logits"]), -1)
    logits: torch.Tensor = output["logits"]
    return logits


@contextmanager
def exchanged(model: PreTrainedModel, family: Family) -> Iterator[None]:
    """Let Regard's attention take the place of the model's own, eager one until the context ends."""
    model.set_attn_implementation(IMPLEMENTATION)
    try:
        with family.adapted(model):
            yield
    finally:
        model.set_attn_implementation("eager")


@contextmanager
def replaced(module: torch.nn.Module, name: str, value: object) -> Iterator[None]:
    """Let one module have another method until the context ends."""
    vars(module)[name] = value
    try:
        yield
    finally:
        del vars(module)[name]


def with_forwards(model: PreTrainedModel, forwards: Mapping[str, Callable[..., Any]]) -> AbstractContextManager[object]:
    """Let all modules of some classes, by their names, be called as functions of the module until the context ends."""
    with ExitStack() as stack:
        for module in model.modules():
            forward = forwards.get(type(module).__name__)
            if forward is not None:
                stack.enter_context(replaced(module, "forward", partial(forward, module)))
        return stack.pop_all()


def keys_and_values(
    cache: EncoderDecoderCache | None,
    layer: int,
    project: Callable[[], tuple[torch.Tensor, torch.Tensor]],
    *,
    cross: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a layer's keys and values [R, H, S, D]: those of `project`, through the cache if there is one.

    Across, they are projected once and then stay as they are.
    """
    if cache is None:
        return project()
    if cross and cache.is_updated.get(layer):
        cached: Any = cache.cross_attention_cache.layers[layer]
        return cached.keys, cached.values
    half = cache.cross_attention_cache if cross else cache.self_attention_cache
    keys, values = half.update(*project(), layer)
    return keys, values


def unused_positions(stack: torch.nn.Module) -> int:
    """Return how many rows of the position table come before the first position: RoBERTa's kind has padding there."""
    embeddings = getattr(getattr(stack, "base_model", stack), "embeddings", None)
    table = getattr(embeddings, "position_embeddings", None)
    padding_index = getattr(table, "padding_idx", None)
    return 0 if padding_index is None else int(padding_index) + 1

"""BLIP: a captioner in two parts, called one after the other, with attention of their own."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from transformers import GenerationConfig, PretrainedConfig, PreTrainedModel
from transformers.cache_utils import Cache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

from regard_export.attention import attend
from regard_export.families.base import Family, keys_and_values, with_forwards


class Blip(Family):
    """Calls `vision_model`, then `text_decoder`."""

    def attends_to_source(self, config: PretrainedConfig) -> bool:
        """Return True; the config doesn't call itself an encoder-decoder."""
        return True

    def generation(self, model: PreTrainedModel) -> GenerationConfig:
        """Return the text decoder's, with the tokens that BLIP's own `generate()` starts and ends with."""
        generation: GenerationConfig = copy.deepcopy(model.get_decoder().generation_config)
        config = model.config.get_text_config()
        generation.update(
            decoder_start_token_id=config.bos_token_id,
            eos_token_id=config.sep_token_id,
            pad_token_id=config.pad_token_id,
        )
        return generation

    def encode(self, model: PreTrainedModel, source: Mapping[str, torch.Tensor], **options: Any) -> BaseModelOutput:
        """Look at the images."""
        output: BaseModelOutput = model.get_submodule("vision_model")(**source, **options)
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
        """Write from what was seen."""
        seen = self.encode(model, source or {}, **options) if hidden is None else BaseModelOutput(hidden)
        written = model.get_submodule("text_decoder")(
            input_ids=token_ids,
            position_ids=positions,
            encoder_hidden_states=seen.last_hidden_state,
            past_key_values=cache,
            use_cache=cache is not None,
            **options,
        )
        return Seq2SeqLMOutput(
            logits=written.logits,
            encoder_last_hidden_state=seen.last_hidden_state,
            encoder_attentions=seen.attentions,
            decoder_attentions=written.attentions,
            cross_attentions=written.cross_attentions,
        )

    def adapted(self, model: PreTrainedModel) -> AbstractContextManager[object]:
        """Let both kinds of attention call Regard's."""
        return with_forwards(model, {"BlipTextSelfAttention": _text_attention, "BlipAttention": _image_attention})


def _text_attention(
    attention: Any,
    states: torch.Tensor,
    encoder_hidden_states: torch.Tensor | None = None,
    past_key_values: EncoderDecoderCache | None = None,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Attend from `states` [R, Q, W] to themselves, or to what was seen; a step needs no mask."""
    read = states if encoder_hidden_states is None else encoder_hidden_states

    def split(states: torch.Tensor) -> torch.Tensor:
        return states.view(*states.shape[:-1], -1, attention.attention_head_size).transpose(1, 2)

    keys, values = keys_and_values(
        past_key_values,
        attention.layer_idx,
        lambda: (split(attention.key(read)), split(attention.value(read))),
        cross=encoder_hidden_states is not None,
    )
    return attend(attention, split(attention.query(states)), keys, values).flatten(2), None


def _image_attention(attention: Any, hidden_states: torch.Tensor, **_: object) -> tuple[torch.Tensor, None]:
    """Attend from every position [R, S, W] to every other."""
    rows, length = hidden_states.shape[:2]
    query, key, value = (
        states.view(rows, length, attention.num_heads, -1).transpose(1, 2)
        for states in attention.qkv(hidden_states).chunk(3, dim=-1)
    )
    output = attend(attention, query, key, value, scaling=attention.scale)
    return attention.projection(output.flatten(2)), None

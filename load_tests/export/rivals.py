"""What else a checkpoint can become: `torch.onnx.export` of the same model, with SDPA or with eager attention.

The eager one gives every attention weight as outputs, as Optimum exports a model whose configuration asks
for them. Both do the work of Regard's graphs and no more: an encoder goes on to the cross-attention's keys
and values, a step appends to a cache that it is given and takes the likeliest token.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

OPSET = 21


class Classifier(torch.nn.Module):
    """A classifier of texts or images: logits [R, C], and of each layer weights [R, H, S, S]."""

    def __init__(self, model: PreTrainedModel, *, weights: bool) -> None:
        super().__init__()
        self._model = model
        self._weights = weights

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, ...]:
        """Return the logits, then the weights of every layer."""
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "pixel_values": pixel_values}
        given = {name: tensor for name, tensor in inputs.items() if tensor is not None}
        output = self._model(**given, output_attentions=self._weights)
        return (output.logits, *(output.attentions if self._weights else ()))


class Encoder(torch.nn.Module):
    """A translator's encoder: every cross-attention's keys and values [R, H, S, D], and weights [R, H, S, S]."""

    def __init__(self, model: PreTrainedModel, *, weights: bool) -> None:
        super().__init__()
        self._model: Any = model
        self._weights = weights

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return each layer's key and value, then the encoder's weights."""
        output = self._model.get_encoder()(input_ids, attention_mask, output_attentions=self._weights)
        hidden = output.last_hidden_state
        attentions = [layer.encoder_attn for layer in self._model.get_decoder().layers]
        given = [
            projection(hidden).unflatten(2, (-1, attention.head_dim)).transpose(1, 2)
            for attention in attentions
            for projection in (attention.k_proj, attention.v_proj)
        ]
        return (*given, *(output.attentions if self._weights else ()))


class Step(torch.nn.Module):
    """A translator's decoder over one token.

    It gives the next one and its log-probability, both [N, 1], the caches one longer, and weights [N, H, 1, keys].
    """

    def __init__(self, model: PreTrainedModel, *, weights: bool) -> None:
        super().__init__()
        self._model: Any = model
        self._weights = weights

    def forward(
        self, token_ids: torch.Tensor, attention_mask: torch.Tensor, past: list[torch.Tensor], cross: list[torch.Tensor]
    ) -> tuple[torch.Tensor, ...]:
        """Return the likeliest token, each layer's key and value, then its self- and its cross-attention."""
        cache = EncoderDecoderCache(_filled(past), _filled(cross))
        cache.is_updated = dict.fromkeys(range(len(past) // 2), True)
        hidden = torch.zeros(*attention_mask.shape, self._model.config.d_model)
        output = self._model(
            encoder_outputs=BaseModelOutput(last_hidden_state=hidden),
            attention_mask=attention_mask,
            decoder_input_ids=token_ids,
            past_key_values=cache,
            use_cache=True,
            output_attentions=self._weights,
        )
        layers = output.past_key_values.self_attention_cache.layers
        state = [tensor for layer in layers for tensor in (layer.keys, layer.values)]
        weights = (*output.decoder_attentions, *output.cross_attentions) if self._weights else ()
        best = output.logits[:, -1].log_softmax(-1).topk(1)
        return (best.indices, best.values, *state, *weights)


def _filled(tensors: list[torch.Tensor]) -> DynamicCache:
    cache = DynamicCache()
    for layer, (key, value) in enumerate(zip(tensors[::2], tensors[1::2], strict=True)):
        cache.update(key, value, layer)
    return cache


def write(module: torch.nn.Module, inputs: Mapping[str, Any], shapes: Mapping[str, Any], file: Path) -> None:
    """Export a module as PyTorch's documentation says, with its weights beside it."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(),
            (),
            kwargs=dict(inputs),
            dynamic_shapes=dict(shapes),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.save(file, external_data=True)

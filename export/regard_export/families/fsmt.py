"""FSMT: attention of its own, on [positions, rows, width], and a table of positions that may grow."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import EncoderDecoderCache

from regard_export.attention import attend
from regard_export.families.base import Family, replaced


class FSMT(Family):
    """Exchanges both."""

    def adapted(self, model: PreTrainedModel) -> AbstractContextManager[object]:
        """Let every attention call Regard's, and every table look positions up as it stands."""
        with ExitStack() as stack:
            for module in model.modules():
                if type(module).__name__ == "Attention":
                    stack.enter_context(replaced(module, "forward", partial(_attention, module)))
                elif type(module).__name__ == "SinusoidalPositionalEmbedding":
                    stack.enter_context(replaced(module, "forward", partial(_positions, module)))
            return stack.pop_all()


def _attention(
    attention: Any,
    query: torch.Tensor,
    key: torch.Tensor | None,
    layer_state: EncoderDecoderCache | None = None,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Attend from `query` [Q, R, W] to itself, or to `key` [S, R, W] or its cache; masks are lengths."""
    rows, layer, crosses = query.shape[1], attention.layer_idx, attention.encoder_decoder_attention

    def split(states: torch.Tensor) -> torch.Tensor:
        return states.view(-1, rows, attention.num_heads, attention.head_dim).permute(1, 2, 0, 3)

    if crosses and layer_state is not None and layer_state.is_updated.get(layer):
        cached: Any = layer_state.cross_attention_cache.layers[layer]
        keys, values = cached.keys, cached.values
    else:
        states = key if crosses else query
        keys, values = split(attention.k_proj(states)), split(attention.v_proj(states))
        if layer_state is not None:
            cache = layer_state.cross_attention_cache if crosses else layer_state.self_attention_cache
            keys, values = cache.update(keys, values, layer)
    output = attend(attention, split(attention.q_proj(query)), keys, values, scaling=attention.scaling)
    return attention.out_proj(output.flatten(2).transpose(0, 1)), None


def _positions(table: Any, token_ids: torch.Tensor, *, past_key_values_length: Any = 0) -> torch.Tensor:
    """Look up the positions [R, S, W] of tokens, each row at its own."""
    positions = table.make_positions(token_ids, table.padding_idx) + past_key_values_length
    return torch.nn.functional.embedding(positions, table.weight)

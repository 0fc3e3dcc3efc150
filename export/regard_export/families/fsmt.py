"""FSMT: attention of its own, on [positions, rows, width], and a table of positions that may grow."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import EncoderDecoderCache

from regard_export.attention import attend
from regard_export.families.base import Family, keys_and_values, with_forwards


class FSMT(Family):
    """Exchanges both."""

    def adapted(self, model: PreTrainedModel) -> AbstractContextManager[object]:
        """Let every attention call Regard's, and every table look positions up as it stands."""
        return with_forwards(model, {"Attention": _attention, "SinusoidalPositionalEmbedding": _positions})


def _attention(
    attention: Any,
    query: torch.Tensor,
    key: torch.Tensor | None,
    layer_state: EncoderDecoderCache | None = None,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Attend from `query` [Q, R, W] to itself, or to `key` [S, R, W] or its cache; masks are lengths."""
    rows, cross = query.shape[1], attention.encoder_decoder_attention
    read = key if cross else query

    def split(states: torch.Tensor) -> torch.Tensor:
        return states.view(-1, rows, attention.num_heads, attention.head_dim).permute(1, 2, 0, 3)

    keys, values = keys_and_values(
        layer_state,
        attention.layer_idx,
        lambda: (split(attention.k_proj(read)), split(attention.v_proj(read))),
        cross=cross,
    )
    output = attend(attention, split(attention.q_proj(query)), keys, values, scaling=attention.scaling)
    return attention.out_proj(output.flatten(2).transpose(0, 1)), None


def _positions(table: Any, token_ids: torch.Tensor, *, past_key_values_length: Any = 0) -> torch.Tensor:
    """Look up the positions [R, S, W] of tokens, each row at its own."""
    positions = table.make_positions(token_ids, table.padding_idx) + past_key_values_length
    return torch.nn.functional.embedding(positions, table.weight)

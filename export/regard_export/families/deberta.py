"""DeBERTa (v2 and v3): attention of its own, whose scores know content and position apart."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from transformers import PreTrainedModel

from regard_export.attention import attend
from regard_export.families.base import Family, with_forwards


class Deberta(Family):
    """Hands the scores between content and position to Regard's attention, as a bias."""

    def adapted(self, model: PreTrainedModel) -> AbstractContextManager[object]:
        """Let every attention call Regard's."""
        return with_forwards(model, {"DisentangledSelfAttention": _attention})


def _attention(
    attention: Any,
    hidden_states: torch.Tensor,
    _: torch.Tensor,
    __: bool = False,
    *,
    query_states: torch.Tensor | None = None,
    relative_pos: torch.Tensor | None = None,
    rel_embeddings: torch.Tensor | None = None,
) -> tuple[torch.Tensor, None]:
    """Attend from `query_states` [R, S, W] to `hidden_states`; the mask says what lengths say already.

    The scores are those of He et al., "DeBERTa: Decoding-enhanced BERT with Disentangled Attention"
    (2021), equation 4: each of their kinds adds one to what they are scaled by.
    """
    heads = attention.num_attention_heads
    states = hidden_states if query_states is None else query_states
    query, key, value = (
        attention.transpose_for_scores(projection(read), heads)
        for projection, read in (
            (attention.query_proj, states),
            (attention.key_proj, hidden_states),
            (attention.value_proj, hidden_states),
        )
    )

    def by_head(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.view(-1, heads, *tensor.shape[1:])

    kinds = 1 + sum(kind in attention.pos_att_type for kind in ("c2p", "p2c"))
    bias = None
    if attention.relative_attention:
        bias = by_head(attention.disentangled_attention_bias(query, key, relative_pos, rel_embeddings, kinds))
    output = attend(
        attention,
        by_head(query),
        by_head(key),
        by_head(value),
        scaling=(query.shape[-1] * kinds) ** -0.5,
        position_bias=bias,
    )
    return output.flatten(2), None

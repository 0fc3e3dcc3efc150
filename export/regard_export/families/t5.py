"""T5 and mT5: positions are a bias on the scores."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from functools import partial
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel

from regard_export.attention import current_trace
from regard_export.families.base import Family, replaced


class T5(Family):
    """Gives every row of a decoding step the bias of its own position."""

    def max_positions(self, config: PretrainedConfig) -> None:
        """Return None: distances are what counts, and far ones share a bias."""

    def adapted(self, model: PreTrainedModel) -> AbstractContextManager[object]:
        """Exchange the decoder's bias."""
        with ExitStack() as stack:
            for module in model.modules():
                if getattr(module, "has_relative_attention_bias", False) and module.is_decoder:
                    stack.enter_context(replaced(module, "compute_bias", partial(_bias, module, module.compute_bias)))
            return stack.pop_all()


def _bias(attention: Any, whole: Any, queries: int, keys: int, past_seen_tokens: Any = 0, **options: Any) -> Any:
    """Return the bias [N, H, 1, P] of rows that have seen `past_seen_tokens` [N, 1], over all slots of the cache.

    The relative positions are those of Raffel et al., "Exploring the Limits of Transfer Learning with
    a Unified Text-to-Text Transformer" (2020), section 2.1.
    """
    step = current_trace().step
    if step is None:
        return whole(queries, keys, past_seen_tokens=past_seen_tokens, **options)
    slots = torch.arange(step.past[0][0].shape[2])
    buckets = attention._relative_position_bucket(
        slots[None] - past_seen_tokens,
        bidirectional=False,
        num_buckets=attention.relative_attention_num_buckets,
        max_distance=attention.relative_attention_max_distance,
    )
    return attention.relative_attention_bias(buckets).transpose(1, 2)[:, :, None]

"""SigLIP: two encoders that are compared; one reads padding like text, the other ends with a query that pools."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, BaseModelOutputWithPooling

from regard_export.attention import attend
from regard_export.families.base import Family, with_forwards
from regard_export.pooling import beside_pooling, pooled


class Siglip(Family):
    """Texts are of one length, padding included, which no mask hides (Zhai et al. 2023, arXiv 2303.15343).

    The embedding of a text is that of its last position, whatever is there; that of an image is gathered from its
    patches by a layer of attention with one learned query, of which Transformers gives no weights.
    """

    reads_padding = True

    def pools(self, model: PreTrainedModel) -> bool:
        """Return whether the images' embedding is answered, which a classifier leaves unread."""
        return _compares(model)

    def encode(self, model: PreTrainedModel, source: Mapping[str, torch.Tensor], **options: Any) -> BaseModelOutput:
        """Look at the images."""
        output: BaseModelOutput = model.get_submodule("vision_model")(**source, **options)
        return output

    def embed(
        self, model: PreTrainedModel, source: Mapping[str, torch.Tensor], **options: Any
    ) -> BaseModelOutputWithPooling:
        """Run one of the encoders; the images' `attentions` are those of its layers, and of the pooling at last."""
        if "pixel_values" not in source or not options.get("output_attentions"):
            return super().embed(model, source, **options)
        found: list[torch.Tensor] = []
        pooling = model.get_submodule("vision_model.head.attention")
        hooks = [
            pooling.register_forward_pre_hook(
                lambda _, args, kwargs: (args, kwargs | {"average_attn_weights": False}), with_kwargs=True
            ),
            pooling.register_forward_hook(lambda _, __, output: found.append(output[1])),
        ]
        try:
            output = super().embed(model, source, **options)
        finally:
            for hook in hooks:
                hook.remove()
        assert output.attentions is not None
        output.attentions = (*map(beside_pooling, output.attentions), pooled(found[0]))
        return output

    def adapted(self, model: PreTrainedModel) -> AbstractContextManager[object]:
        """Let the pooling call Regard's attention, too; a classifier, which takes the patches' mean, goes without."""
        pool = _pool if _compares(model) else _leave
        return with_forwards(model, {"SiglipMultiheadAttentionPoolingHead": pool})


def _compares(model: PreTrainedModel) -> bool:
    return hasattr(model, "text_model")


def _pool(head: Any, hidden: torch.Tensor) -> torch.Tensor:
    """Gather the patches [R, S, W] by the learned query, to [R, W]."""
    attention: torch.nn.MultiheadAttention = head.attention
    heads, size, width = attention.num_heads, attention.head_dim, attention.embed_dim
    query, key, value = (
        torch.nn.functional.linear(states, attention.in_proj_weight[own], attention.in_proj_bias[own])
        .reshape(states.shape[0], -1, heads, size)
        .transpose(1, 2)
        for states, own in zip((head.probe, hidden, hidden), _thirds(width), strict=True)
    )
    gathered = attend(attention, query.expand(hidden.shape[0], -1, -1, -1), key, value).flatten(2)
    gathered = attention.out_proj(gathered)
    answer: torch.Tensor = gathered + head.mlp(head.layernorm(gathered))
    return answer[:, 0]


def _thirds(width: int) -> list[slice]:
    """Return where queries', keys' and values' parts stand in what is put together of them."""
    return [slice(part * width, (part + 1) * width) for part in range(3)]


def _leave(_: object, hidden: torch.Tensor) -> torch.Tensor:
    """Stand in for a pooling that nothing reads."""
    return hidden[:, 0]

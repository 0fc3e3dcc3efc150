"""GIT: a decoder that reads an image as if it were the beginning of its text."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, CausalLMOutputWithPast

from regard_export.attention import attend
from regard_export.families.base import Family, with_forwards


class Git(Family):
    """Reads the image alone, every position of it seeing every other; text comes with the steps."""

    reads_images_itself = True

    def decoder(self, model: PreTrainedModel) -> torch.nn.Module:
        """Return the stack that reads and writes; the model's own answer holds the image's stack as well."""
        return model.get_submodule("git.encoder")

    def encode(self, model: PreTrainedModel, source: Mapping[str, torch.Tensor], **options: Any) -> BaseModelOutput:
        """Look at the images."""
        output: BaseModelOutput = model.get_submodule("git.image_encoder")(**source, **options)
        return output

    def prefill(self, model: PreTrainedModel, source: Mapping[str, torch.Tensor], cache: Any) -> None:
        """Let the decoder read what was seen."""
        seen = self.encode(model, source).last_hidden_state
        self.decoder(model)(model.get_submodule("git.visual_projection")(seen), past_key_values=cache, use_cache=True)

    def complete(
        self, model: PreTrainedModel, source: Mapping[str, torch.Tensor], token_ids: torch.Tensor, **options: Any
    ) -> CausalLMOutputWithPast:
        """Run the whole model."""
        output: CausalLMOutputWithPast = model(**source, input_ids=token_ids, **options)
        return output

    def adapted(self, model: PreTrainedModel) -> AbstractContextManager[object]:
        """Let the decoder's attention call Regard's; the other follows Transformers' conventions."""
        return with_forwards(model, {"GitSelfAttention": _attention})


def _attention(
    attention: Any, hidden_states: torch.Tensor, _: object = None, past_key_values: Any = None, **__: object
) -> tuple[torch.Tensor, None]:
    """Attend from `hidden_states` [R, Q, W] to themselves and what the cache holds."""
    query, key, value = (
        projection(hidden_states).unflatten(2, (-1, attention.attention_head_size)).transpose(1, 2)
        for projection in (attention.query, attention.key, attention.value)
    )
    key, value = past_key_values.update(key, value, attention.layer_idx)
    return attend(attention, query, key, value).flatten(2), None

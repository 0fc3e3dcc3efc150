"""Whisper: a model of speech, whose text begins with tokens that say what to write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel

from regard_export.families.base import Family


class Whisper(Family):
    """Counts positions by a name of its own."""

    def max_positions(self, config: PretrainedConfig) -> int | None:
        """Return how many positions the decoder's table has."""
        return int(config.max_target_positions)

    def generate(
        self, model: PreTrainedModel, source: Mapping[str, torch.Tensor], prompt: Sequence[int], **options: Any
    ) -> Any:
        """Search as any model does: Whisper's own `generate()` puts windows together and cuts the prompt off."""
        search: Any = GenerationMixin.generate
        rows = next(iter(source.values())).shape[0]
        return search(model, **source, decoder_input_ids=torch.tensor([prompt]).expand(rows, -1), **options)

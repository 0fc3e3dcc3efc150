"""VisionEncoderDecoderModel: an encoder of images in front of a language model with cross-attention."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.modeling_outputs import Seq2SeqLMOutput

from regard_export.families.base import Family, unused_positions


class VisionEncoderDecoder(Family):
    """Hands on whatever is called `decoder_...` to its decoder."""

    def decode(
        self, model: PreTrainedModel, token_ids: torch.Tensor, *, positions: torch.Tensor | None = None, **options: Any
    ) -> Seq2SeqLMOutput:
        """Tell the decoder its positions, unless it starts them behind a padding index, as RoBERTa does."""
        decoder = model.get_decoder()
        takes_positions = "position_ids" in inspect.signature(decoder.forward).parameters
        if positions is not None and takes_positions and not unused_positions(decoder):
            options["decoder_position_ids"] = positions
        return super().decode(model, token_ids, **options)

"""Transformers, in eager PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import MarianMTModel

from load_tests.peers.memory import peak_bytes
from load_tests.peers.sources import Source


class Transformers:
    """Transformers' `generate()` in eager PyTorch, given batches of `concurrency` whose sources ask for the same.

    With `attention` it returns the weights of every layer and head as well, as it only can.
    """

    name = "transformers"

    def __init__(self, checkpoint: Path, *, threads: int, attention: bool = False) -> None:
        torch.set_num_threads(threads)
        self._attention = attention
        implementation: dict[str, Any] = {"attn_implementation": "eager"} if attention else {}
        self._model = MarianMTModel.from_pretrained(checkpoint, dtype=torch.float32, **implementation).eval()
        self._model.generation_config.max_length = None  # or it warns that max_new_tokens weighs more

    def translate(self, sources: Sequence[Source], concurrency: int, beams: int = 1) -> list[int]:
        """Generate batch after batch, in the order given."""
        counts: list[int] = []
        for first in range(0, len(sources), concurrency):
            batch = sources[first : first + concurrency]
            pad = self._model.config.pad_token_id
            input_ids = torch.nn.utils.rnn.pad_sequence(
                [torch.tensor(source.token_ids) for source in batch], batch_first=True, padding_value=pad
            )
            with torch.inference_mode():
                output = self._model.generate(
                    input_ids,
                    attention_mask=(input_ids != pad).long(),
                    max_new_tokens=max(source.target_tokens for source in batch),
                    num_beams=beams,
                    output_attentions=self._attention,
                    return_dict_in_generate=True,
                )
            counts += [output.sequences.shape[1] - 1] * len(batch)  # the first is the start token
        return counts

    def peak_bytes(self) -> int:
        """Return the most memory that this process has held."""
        return peak_bytes()

    def close(self) -> None:
        """Free the model."""
        del self._model

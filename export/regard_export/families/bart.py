"""BART and mBART: a table of positions that expects every row to stand at the same one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel

from regard_export.families.base import Family


class Bart(Family):
    """Takes one axis off positions [1, N, 1, W] that the table looked up row by row."""

    @contextmanager
    def adapted(self, model: PreTrainedModel) -> Iterator[None]:
        """Look at what the decoder's table of positions gives."""
        table = model.get_decoder().get_submodule("embed_positions")
        hook = table.register_forward_hook(_without_extra_axis)
        try:
            yield
        finally:
            hook.remove()


def _without_extra_axis(_: torch.nn.Module, __: object, positions: torch.Tensor) -> torch.Tensor:
    return positions[0] if positions.dim() == 4 else positions

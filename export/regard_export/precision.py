"""What a package's weights are stored and multiplied in, and how far its answers may be from fp32's."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from regard_export.checkpoint import Checkpoint

TOLERANCES: dict[str, float | None] = {"fp32": 1e-4, "fp16": 2e-2, "int8": None}
"""The largest absolute difference from the eager fp32 model; int8 is lossy by nature: its figures are reported.

Where twice what the eager model itself is off in fp16 is more, a package may be that far off.
"""

ANGLES = "inv_freq"
"""What the names of buffers end with that say by which angle each position turns.

They stay in float32, as where Transformers loads a model in fp16: eleven bits of an angle, times a position of some
thousands, would be wrong by a radian.
"""


def in_precision(checkpoint: Checkpoint, precision: str) -> Checkpoint:
    """Return the checkpoint to trace: in fp16 with a copy of the model, or the checkpoint itself.

    int8 graphs are quantised once they are traced in fp32.
    """
    if precision != "fp16":
        return checkpoint
    model = copy.deepcopy(checkpoint.model).half()
    for name, exact in checkpoint.model.named_buffers():
        if name.endswith(ANGLES):
            module, _, buffer = name.rpartition(".")
            setattr(model.get_submodule(module), buffer, exact)
    return dataclasses.replace(checkpoint, model=model)


@contextmanager
def finite() -> Iterator[None]:
    """Let a model take its values for finite until the context ends.

    Some look, in fp16, whether any is not, and clamp them all if so: a branch on values, which a graph
    can't take. What overflows then stays visible.
    """
    isfinite = torch.isfinite
    vars(torch)["isfinite"] = lambda _: _Finite()
    try:
        yield
    finally:
        vars(torch)["isfinite"] = isfinite


class _Finite:
    """What `torch.isfinite` returns, as far as the models ask."""

    def all(self) -> bool:
        return True

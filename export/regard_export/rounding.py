"""How far eager PyTorch itself goes from fp32 when it runs the same weights in fp16.

Every operator of every layer rounds to eleven bits, and the logits of a trained model end up further off
than one tolerance for all models can allow. So a graph in fp16 is measured by how far off its model is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from regard.manifest import TapSpec
from regard_export.checkpoint import Checkpoint
from regard_export.errors import ExportError
from regard_export.parity import Parity
from regard_export.precision import in_precision
from regard_export.samples import Source, answer_of, expected_weights, random_tokens


def eager_differences(checkpoint: Checkpoint, taps: tuple[TapSpec, ...], precision: str) -> dict[str, float]:
    """Return the largest differences of the eager model in fp16 from fp32, on the samples of the proof.

    There are none in fp32, and none to compare with in int8, which PyTorch doesn't compute alike. Weights times norms
    have none of their own: they may be as far off as the weights. Raises `ExportError` for a model that overflows.
    """
    if precision != "fp16":
        return {}
    found, half = Parity(None, ()), in_precision(checkpoint, "fp16")
    with torch.no_grad():
        for graph, inputs in checkpoint.sources.items():
            own = tuple(tap for tap in taps if tap.graph in (graph, "step") and tap.weighting is None)
            for sample in inputs.samples():
                source = Source.of(inputs, sample)
                outputs = zip(_outputs(half, source.halved(), own), _outputs(checkpoint, source, own), strict=True)
                for (name, rounded), (_, exact) in outputs:
                    found.note(name, rounded.float().numpy(), exact)
    for name, worst in found.differences.items():
        if not np.isfinite(worst):
            raise ExportError(f"the model itself overflows in fp16: its {name} isn't finite; export it in fp32")
    return found.differences


def _outputs(checkpoint: Checkpoint, source: Source, taps: tuple[TapSpec, ...]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield what the eager model answers, by the names of the proof; maps are cut to their real positions."""
    reading = [tap for tap in taps if tap.graph != "step"]
    if checkpoint.has_only_decoder:
        yield from _completions(checkpoint, source, taps)
        return
    if checkpoint.generation is None:
        read: Any = answer_of(checkpoint, source)
        for row in source.real(read.tensor):
            yield read.name, row
    else:
        read = checkpoint.family.encode(checkpoint.model, source.arguments, output_attentions=True)
        tokens = torch.from_numpy(random_tokens(checkpoint.generation, len(source.lengths)))
        written: Any = checkpoint.family.decode(
            checkpoint.model, tokens, source=source.arguments, output_attentions=True
        )
        yield "logits", written.logits
        yield "log_sum_exp", written.logits.logsumexp(-1)
        for tap in (tap for tap in taps if tap.graph == "step"):
            maps = written.cross_attentions if tap.kind == "cross" else written.decoder_attentions
            yield tap.name, maps[tap.layer]
    for tap in reading:
        for row, length in enumerate(source.lengths):
            yield tap.name, expected_weights(tap, read.attentions)[row, :, :length]


def _completions(
    checkpoint: Checkpoint, source: Source, taps: tuple[TapSpec, ...]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield what a decoder without an encoder answers to each source alone, as the proof reads them."""
    assert checkpoint.generation is not None
    tokens = torch.from_numpy(random_tokens(checkpoint.generation, len(source.lengths)))
    for row in range(len(source.lengths)):
        alone, fed = source.alone(row), tokens[row : row + 1]
        written: Any = checkpoint.family.complete(checkpoint.model, alone, fed, output_attentions=True)
        yield "logits", written.logits[:, -fed.shape[1] :]
        yield "log_sum_exp", written.logits[:, -fed.shape[1] :].logsumexp(-1)
        maps = {"decoder": written.attentions}
        if checkpoint.image is not None:
            maps["encoder"] = checkpoint.family.encode(checkpoint.model, alone, output_attentions=True).attentions
        for tap in taps:
            yield tap.name, expected_weights(tap, maps[tap.stack])

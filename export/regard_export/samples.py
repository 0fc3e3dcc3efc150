"""What the proofs feed to the graphs and to the eager model, and what the eager model says in one step."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from regard.manifest import GenerationSpec, TapSpec, Task
from regard_export.checkpoint import Checkpoint
from regard_export.errors import ExportError
from regard_export.families import logits_of
from regard_export.graphs import NORM_ROWS, REDUCED_ROWS, TAP_ROWS
from regard_export.inputs import Inputs
from regard_export.stepping import SAMPLE_TOKENS, Array, Feeds

ROWS_INPUTS = (TAP_ROWS["self"], *REDUCED_ROWS.values(), NORM_ROWS["self"])
Norms = Mapping[tuple[str, str], Sequence[torch.Tensor]]
"""The norms [R, H, T] of transformed values of every layer, by stack and kind of attention."""
NO_NORMS: Norms = MappingProxyType({})


@dataclass(frozen=True)
class Source:
    """One batch of sources: what the graphs and the eager model are fed, and its real lengths [R]."""

    feeds: Feeds
    arguments: dict[str, torch.Tensor]
    lengths: Array

    @classmethod
    def of(cls, inputs: Inputs, sample: Feeds) -> Source:
        """Make one of a graph's inputs."""
        tensors = {name: torch.from_numpy(array) for name, array in sample.items()}
        lengths = inputs.lengths(sample)
        return cls(sample, inputs.arguments(tensors), lengths)

    def askings(self) -> Iterator[tuple[Array, Feeds]]:
        """Yield what graphs are fed where all rows ask for every map, none does, or the last alone; and those rows.

        Each is a way of its own through a graph.
        """
        count = len(self.lengths)
        for rows in (np.arange(count), np.arange(0), np.arange(count - 1, count)):
            yield rows, self.feeds | dict.fromkeys(ROWS_INPUTS, rows)

    def real(self, answers: Any) -> Iterator[Any]:
        """Yield each row of answers, [R, ...]; of one for every token, [R, S, C], without its padding."""
        for row, length in zip(answers, self.lengths, strict=True):
            yield row if answers.ndim == 2 else row[:length]

    def alone(self, row: int) -> dict[str, torch.Tensor]:
        """Return what the eager model takes of one row, without its padding."""
        length = int(self.lengths[row])
        return {
            name: one[row : row + 1, :length] if name == "input_ids" else one[row : row + 1]
            for name, one in self.arguments.items()
        }

    def halved(self) -> Source:
        """Return the same with what the eager model takes in floating point in fp16."""
        arguments = {k: v.half() if v.is_floating_point() else v for k, v in self.arguments.items()}
        return dataclasses.replace(self, arguments=arguments)


def expected_weights(tap: TapSpec, maps: Sequence[torch.Tensor], norms: Norms = NO_NORMS) -> torch.Tensor:
    """Return what a tap is to give, [R, H or 1, Q, T], of the eager model's maps [R, H, Q, T] of every layer.

    Raises `ExportError` for weights times norms that the eager model didn't tell.
    """
    weights = maps[tap.layer]
    if tap.weighting is not None:
        own = norms.get((tap.stack, tap.kind), ())
        if len(own) != len(maps):
            raise ExportError(
                f"its {tap.stack} computes {tap.kind}-attention by itself, not through Transformers' interface, so "
                "that no norms of its values can be proven; leave --value-norms out"
            )
        return weights * own[tap.layer][:, :, None]
    match tap.reduction:
        case "mean":
            return weights.mean(1, keepdim=True)
        case "max":
            return weights.amax(1, keepdim=True)
        case _:
            return weights


def unit_of(tap: TapSpec, norms: Norms) -> float:
    """Return what differences of a tap are told in: the largest norm of its layer, if that is over 1, or 1."""
    return max(1.0, float(norms[tap.stack, tap.kind][tap.layer].max())) if tap.weighting is not None else 1.0


@dataclass(frozen=True)
class Answer:
    """What an eager model that answers in one step says: `tensor` [R, ...], by the name of the graph's output."""

    name: str
    tensor: torch.Tensor
    attentions: tuple[torch.Tensor, ...]


def answer_of(checkpoint: Checkpoint, source: Source) -> Answer:
    """Ask the eager model."""
    if checkpoint.task is Task.SIMILARITY:
        embedded: Any = checkpoint.family.embed(checkpoint.model, source.arguments, output_attentions=True)
        embeddings = torch.nn.functional.normalize(embedded.pooler_output.float(), dim=-1)
        return Answer("embeddings", embeddings, embedded.attentions)
    output = checkpoint.model(**source.arguments, output_attentions=True)
    return Answer("logits", logits_of(output), output.attentions)


def random_tokens(spec: GenerationSpec, rows: int) -> Array:
    """Return target tokens, int64 [rows, T], without padding, whose place some models count and others don't."""
    tokens = np.random.default_rng(1).integers(0, spec.vocabulary_size, (rows, SAMPLE_TOKENS))
    tokens[tokens == spec.pad_token_id] = spec.eos_token_ids[0]
    tokens[:, 0] = spec.start_token_id
    return tokens

"""Whether a module takes every token that it may be given."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch

from regard_export.errors import ExportError
from regard_export.modules.blueprint import Blueprint
from regard_export.tokenization.reach import furthest_token, named

_CHOICES = "give the tokenizer that the module was trained with, or a module with a row for each token"


def require_embedded(blueprint: Blueprint) -> None:
    """Run a module on the largest token that it may read, and on the largest that it may have written.

    Raises `ExportError` where it has no embedding for one: ONNX Runtime would fail there, and name neither.
    """
    module: Any = blueprint.module
    read: Any = None
    with torch.no_grad():
        if blueprint.image is not None:
            source, length = torch.zeros(1, 3, blueprint.image.height, blueprint.image.width), None
            read = module.encode(source, length) if blueprint.generates else None
        else:
            assert blueprint.tokenizer is not None
            furthest = furthest_token(blueprint.tokenizer, blueprint.pad_token_id)
            source, length = torch.tensor([[furthest]]), torch.tensor([1], dtype=torch.int32)
            with _naming(module, f"the tokenizer's tokens go up to {named(blueprint.tokenizer, furthest)}"):
                read = module.encode(source, length) if blueprint.generates else module.classify(source, length)
        if blueprint.generation is not None:
            size = blueprint.generation.vocabulary_size
            with _naming(module, f"generation.vocabulary_size is {size}"):
                module.step(torch.tensor([size - 1]), read.state, read.memory, length)


@contextmanager
def _naming(module: torch.nn.Module, why: str) -> Iterator[None]:
    """Let an embedding of the module that lacks a token raise `ExportError`, with `why` it is given it."""
    kind = type(module).__name__

    def require(name: str, table: torch.nn.Embedding, inputs: tuple[torch.Tensor, ...]) -> None:
        rows = table.num_embeddings
        if inputs and int(inputs[0].max()) >= rows:
            raise ExportError(
                f"{kind}: {why}, but its embedding {name} has {rows} rows, for tokens up to {rows - 1}: {_CHOICES}"
            )

    with ExitStack() as hooks:
        for name, table in module.named_modules():
            if isinstance(table, torch.nn.Embedding):
                hooks.callback(table.register_forward_pre_hook(partial(require, name)).remove)
        try:
            yield
        except IndexError as error:  # of a table that is no torch.nn.Embedding
            raise ExportError(f"{kind}: {why}, which it has no place for ({error}): {_CHOICES}") from error

"""How a model compares texts with images: what makes scores of two embeddings, and what a text's is made of."""

from __future__ import annotations

from typing import Any

import torch
import transformers

from regard.manifest import SimilaritySpec
from regard_export.errors import CheckpointError
from regard_export.families import Family
from regard_export.inputs import Inputs


def read_padding(tokenizer: Any) -> int:
    """Return the token of a padding that the model reads. Raises `CheckpointError` if the tokenizer has it hidden."""
    if "attention_mask" in tokenizer.model_input_names:
        raise CheckpointError(
            "tokenizer_config.json lets the tokenizer give an attention_mask, but SigLIP was trained to read padding: "
            'set its model_input_names to ["input_ids"]'
        )
    if tokenizer.pad_token_id is None:
        raise CheckpointError("tokenizer_config.json names no pad_token, which SigLIP reads behind every text")
    return int(tokenizer.pad_token_id)


def similarity_of(model: transformers.PreTrainedModel, family: Family, inputs: Inputs) -> SimilaritySpec:
    """Read how the model compares; one that learned a bias was trained on every pair by itself."""
    weights = model.state_dict()
    if "logit_scale" not in weights:
        raise CheckpointError(f"{type(model).__name__} doesn't compare by a logit_scale; unsupported")
    embedding = _embedding(model, family, inputs)
    bias = weights.get("logit_bias")
    return SimilaritySpec(
        embedding_size=embedding.shape[-1],
        logit_scale=float(weights["logit_scale"].double().exp()),
        logit_bias=float(bias) if bias is not None else 0.0,
        probabilities="softmax" if bias is None else "sigmoid",
    )


def _embedding(model: transformers.PreTrainedModel, family: Family, inputs: Inputs) -> torch.Tensor:
    """Return the embedding [1, E] of a text. Raises `CheckpointError` if padding behind it would change it."""
    sample = next(inputs.samples())
    length = int(inputs.lengths(sample)[-1])
    alone = {name: array[-1:, :length] if array.ndim == 2 else array[-1:] for name, array in sample.items()}
    found = []
    with torch.no_grad():
        for batch in (alone, sample):
            arguments = inputs.arguments({name: torch.from_numpy(array) for name, array in batch.items()})
            found.append(family.embed(model, arguments).pooler_output)
    one, padded = found
    assert one is not None and padded is not None
    if not torch.allclose(one, padded[-1:], rtol=1e-3, atol=1e-4):
        raise CheckpointError(
            f"{type(model).__name__} reads texts that are padded to one length, as SigLIP does; only SigLIP is taken so"
        )
    return one

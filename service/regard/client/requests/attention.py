"""What attention a caller may ask for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from regard.client.requests.values import enum_value, read_count, read_indices
from regard.v1 import attention_pb2

Kind = Literal["self", "cross"]
Stack = Literal["encoder", "decoder", "text_encoder", "image_encoder"]
Reduction = Literal["none", "mean", "max", "alignment_heads", "rollout"]
Granularity = Literal["token", "word", "patch"]
Encoding = Literal["float32", "float16", "uint8"]
Weighting = Literal["none", "value_norm"]


@dataclass(frozen=True, slots=True)
class AttentionOptions:
    """What attention to return.

    Empty means: `kinds` cross if the model has it and otherwise self, of its decoder if it has one, every
    stack that has them, all layers (counted from 0 within their stack; of a rollout the last), all
    heads (counted from 0). `prompt` adds a model's maps of its source over itself, where its decoder
    reads it. `top_k` keeps so many of every query's weights, the largest; `encoding` is how they
    travel; `max_bytes` is the most that one input's may come to. None is all, and as many as the
    server allows. `weighting` is what weights are multiplied by: the norm of each key's transformed value,
    if a model was exported for it.
    """

    kinds: Sequence[Kind] = ()
    stacks: Sequence[Stack] = ()
    layers: Sequence[int] = ()
    heads: Sequence[int] = ()
    reduction: Reduction = "none"
    granularity: Granularity = "token"
    prompt: bool = False
    top_k: int | None = None
    encoding: Encoding = "float32"
    max_bytes: int | None = None
    weighting: Weighting = "none"


def attention_message(options: AttentionOptions | None) -> attention_pb2.AttentionOptions | None:
    """Return the message of what attention to return; None for none."""
    if options is None:
        return None
    kind, stack = attention_pb2.AttentionKind.Value, attention_pb2.AttentionStack.Value
    reduction, granularity = attention_pb2.AttentionReduction.Value, attention_pb2.AttentionGranularity.Value
    encoding, weighting = attention_pb2.AttentionEncoding.Value, attention_pb2.AttentionWeighting.Value
    return attention_pb2.AttentionOptions(
        kinds=[enum_value(kind, "ATTENTION_KIND_", one, "attention.kinds") for one in options.kinds],
        stacks=[enum_value(stack, "ATTENTION_STACK_", one, "attention.stacks") for one in options.stacks],
        layers=read_indices(options.layers, "attention.layers"),
        heads=read_indices(options.heads, "attention.heads"),
        reduction=enum_value(reduction, "ATTENTION_REDUCTION_", options.reduction, "attention.reduction"),
        granularity=enum_value(granularity, "ATTENTION_GRANULARITY_", options.granularity, "attention.granularity"),
        prompt=options.prompt,
        top_k=read_count(options.top_k, "attention.top_k"),
        encoding=enum_value(encoding, "ATTENTION_ENCODING_", options.encoding, "attention.encoding"),
        max_bytes=read_count(options.max_bytes, "attention.max_bytes", bits=64),
        weighting=enum_value(weighting, "ATTENTION_WEIGHTING_", options.weighting, "attention.weighting"),
    )

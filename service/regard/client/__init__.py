"""The client: typed calls to a Regard server, in threads or in asyncio.

    from regard.client import AttentionOptions, Client

    with Client("localhost:50051") as client:
        answer = client.translate("The house is old.", attention=AttentionOptions(granularity="word"))
        print(answer.text)
        for attention_map in answer.attention.maps:
            print(attention_map.stack, attention_map.layer, attention_map.weights.shape)

Methods of one input return its result or raise `RequestFailed`. Methods of many return one result
or `Failure` for each, in order, so that one bad input harms no other. Everything raised on purpose
is a `regard.errors.RegardError`.
"""

from regard.answers import (
    Attention,
    AttentionMap,
    Caption,
    Classification,
    ClassProbability,
    GeneratedSequence,
    GeneratedToken,
    Model,
    ModelVersion,
    PatchGrid,
    Segment,
    Tap,
    Timing,
    TokenDelta,
    TokenLogprob,
    Translation,
)
from regard.client.asynchronous import AsyncClient
from regard.client.failures import Failure, InvalidTextError, RequestFailed, ServerUnreachable
from regard.client.generation import GenerationOptions
from regard.client.heat import heat_map, patch_weights
from regard.client.requests import AttentionOptions, CaptionOptions, ClassifyOptions, TranslateOptions
from regard.client.synchronous import Client

__all__ = [
    "AsyncClient",
    "Attention",
    "AttentionMap",
    "AttentionOptions",
    "Caption",
    "CaptionOptions",
    "ClassProbability",
    "Classification",
    "ClassifyOptions",
    "Client",
    "Failure",
    "GeneratedSequence",
    "GeneratedToken",
    "GenerationOptions",
    "InvalidTextError",
    "Model",
    "ModelVersion",
    "PatchGrid",
    "RequestFailed",
    "Segment",
    "ServerUnreachable",
    "Tap",
    "Timing",
    "TokenDelta",
    "TokenLogprob",
    "TranslateOptions",
    "Translation",
    "heat_map",
    "patch_weights",
]

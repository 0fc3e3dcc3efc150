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
    Alignment,
    AnsweredQuestion,
    AnswerSpan,
    Attention,
    AttentionMap,
    Attribution,
    Attributions,
    Caption,
    ClassAttribution,
    Classification,
    ClassifiedToken,
    ClassProbability,
    ComparedImage,
    ComparedText,
    Completion,
    Entity,
    Faithfulness,
    GeneratedSequence,
    GeneratedToken,
    Link,
    Model,
    ModelVersion,
    OutputAttribution,
    PatchGrid,
    Segment,
    SoundFrames,
    SpokenSegment,
    Tap,
    TextScore,
    Timing,
    TokenClassification,
    TokenDelta,
    TokenLogprob,
    Transcription,
    TranscriptionWindow,
    Translation,
)
from regard.client import display as _display  # noqa: F401 (lets notebooks draw answers)
from regard.client.asynchronous import AsyncClient
from regard.client.failures import Failure, InvalidTextError, RequestFailed, ServerUnreachable
from regard.client.generation import GenerationOptions
from regard.client.heat import heat_map, patch_weights
from regard.client.requests import (
    AnswerOptions,
    AttentionOptions,
    AttributeClassOptions,
    AttributeOutputOptions,
    AttributeTranslationOptions,
    Ban,
    Bias,
    CaptionOptions,
    ClassifyOptions,
    ClassifyTokensOptions,
    CompareOptions,
    CompleteOptions,
    Intervention,
    KnockOut,
    LocalWindow,
    Places,
    Samples,
    TranscribeOptions,
    TranslateOptions,
)
from regard.client.results import Comparison
from regard.client.synchronous import Client

__all__ = [
    "Alignment",
    "AnswerOptions",
    "AnswerSpan",
    "AnsweredQuestion",
    "AsyncClient",
    "Attention",
    "AttentionMap",
    "AttentionOptions",
    "AttributeClassOptions",
    "AttributeOutputOptions",
    "AttributeTranslationOptions",
    "Attribution",
    "Attributions",
    "Ban",
    "Bias",
    "Caption",
    "CaptionOptions",
    "ClassAttribution",
    "ClassProbability",
    "Classification",
    "ClassifiedToken",
    "ClassifyOptions",
    "ClassifyTokensOptions",
    "Client",
    "CompareOptions",
    "ComparedImage",
    "ComparedText",
    "Comparison",
    "CompleteOptions",
    "Completion",
    "Entity",
    "Failure",
    "Faithfulness",
    "GeneratedSequence",
    "GeneratedToken",
    "GenerationOptions",
    "Intervention",
    "InvalidTextError",
    "KnockOut",
    "Link",
    "LocalWindow",
    "Model",
    "ModelVersion",
    "OutputAttribution",
    "PatchGrid",
    "Places",
    "RequestFailed",
    "Samples",
    "Segment",
    "ServerUnreachable",
    "SoundFrames",
    "SpokenSegment",
    "Tap",
    "TextScore",
    "Timing",
    "TokenClassification",
    "TokenDelta",
    "TokenLogprob",
    "TranscribeOptions",
    "Transcription",
    "TranscriptionWindow",
    "TranslateOptions",
    "Translation",
    "heat_map",
    "patch_weights",
]

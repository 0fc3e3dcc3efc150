"""What a caller may ask for, and the messages that ask for it: a file per task, and what they share."""

from regard.client.requests.attention import AttentionOptions, Kind
from regard.client.requests.attribution import (
    AttributeClassOptions,
    AttributeOutputOptions,
    AttributeTranslationOptions,
    Described,
    HeadChoice,
    attribute_caption_request,
    attribute_class_request,
    attribute_translation_request,
    read_captioned,
    read_translated,
)
from regard.client.requests.captioning import CaptionOptions, caption_request, stream_caption_request
from regard.client.requests.classification import (
    ClassifyOptions,
    ClassifyTokensOptions,
    classify_request,
    classify_tokens_request,
)
from regard.client.requests.completion import CompleteOptions, complete_request, stream_complete_request
from regard.client.requests.inputs import (
    Image,
    Pair,
    Samples,
    Sound,
    read_image,
    read_input,
    read_pair,
    read_sound,
    read_text,
    split,
)
from regard.client.requests.interventions import Ban, Bias, Intervention, KnockOut, LocalWindow, Places
from regard.client.requests.question_answering import AnswerOptions, answer_request
from regard.client.requests.similarity import CompareOptions, compare_request
from regard.client.requests.transcription import TranscribeOptions, stream_transcribe_request, transcribe_request
from regard.client.requests.translation import (
    ScoreTranslationOptions,
    TranslateOptions,
    score_translation_request,
    stream_translate_request,
    translate_request,
)

__all__ = [
    "AnswerOptions",
    "AttentionOptions",
    "AttributeClassOptions",
    "AttributeOutputOptions",
    "AttributeTranslationOptions",
    "Ban",
    "Bias",
    "CaptionOptions",
    "ClassifyOptions",
    "ClassifyTokensOptions",
    "CompareOptions",
    "CompleteOptions",
    "Described",
    "HeadChoice",
    "Image",
    "Intervention",
    "Kind",
    "KnockOut",
    "LocalWindow",
    "Pair",
    "Places",
    "Samples",
    "ScoreTranslationOptions",
    "Sound",
    "TranscribeOptions",
    "TranslateOptions",
    "answer_request",
    "attribute_caption_request",
    "attribute_class_request",
    "attribute_translation_request",
    "caption_request",
    "classify_request",
    "classify_tokens_request",
    "compare_request",
    "complete_request",
    "read_captioned",
    "read_image",
    "read_input",
    "read_pair",
    "read_sound",
    "read_text",
    "read_translated",
    "score_translation_request",
    "split",
    "stream_caption_request",
    "stream_complete_request",
    "stream_transcribe_request",
    "stream_translate_request",
    "transcribe_request",
    "translate_request",
]

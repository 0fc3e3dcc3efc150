"""Translations."""

from __future__ import annotations

from regard.answers import ModelVersion, TokenDelta, Translation, TranslationScore
from regard.client.failures import Failure
from regard.client.results.attention import read_attention
from regard.client.results.generation import read_alignment, read_delta, read_finish_reason, read_sequences, read_tokens
from regard.client.results.outcome import read_failure, read_model_version, read_timing
from regard.client.results.quality import read_glossary, read_quality
from regard.v1 import translation_pb2


def read_translations(response: translation_pb2.TranslateResponse, first_index: int) -> list[Translation | Failure]:
    """Read the results of a request whose first text is the caller's text `first_index`."""
    model = read_model_version(response.model)
    return [
        read_failure(result.failure, "texts", first_index)
        if result.HasField("failure")
        else read_translation(result.translation, model)
        for result in response.results
    ]


def read_translation(translation: translation_pb2.Translation, model: ModelVersion) -> Translation:
    """Read one translation."""
    return Translation(
        text=translation.text,
        finish_reason=read_finish_reason(translation.finish_reason),
        source_tokens=translation.source_tokens,
        target_tokens=translation.target_tokens,
        log_probability=translation.log_probability,
        truncated=translation.truncated,
        attention=read_attention(translation.attention) if translation.HasField("attention") else None,
        timing=read_timing(translation.timing),
        model=model,
        score=translation.score,
        tokens=read_tokens(translation.tokens),
        further_sequences=read_sequences(translation.further_sequences),
        alignment=read_alignment(translation.alignment) if translation.HasField("alignment") else None,
        quality=read_quality(translation.quality) if translation.HasField("quality") else None,
        glossary=read_glossary(translation.glossary),
    )


def read_translation_scores(
    response: translation_pb2.ScoreTranslationResponse, first_index: int
) -> list[TranslationScore | Failure]:
    """Read the results of a request whose first pair is the caller's pair `first_index`."""
    model = read_model_version(response.model)
    return [
        read_failure(result.failure, "pairs", first_index)
        if result.HasField("failure")
        else TranslationScore(
            tokens=read_tokens(result.score.tokens),
            log_probability=result.score.log_probability,
            source_tokens=result.score.source_tokens,
            truncated=result.score.truncated,
            timing=read_timing(result.score.timing),
            model=model,
        )
        for result in response.results
    ]


def read_event(event: translation_pb2.StreamTranslateResponse) -> TokenDelta | Translation | Failure:
    """Read one event of the stream of one text."""
    if event.HasField("failure"):
        return read_failure(event.failure, "texts", 0)
    if event.HasField("translation"):
        return read_translation(event.translation, read_model_version(event.model))
    return read_delta(event.delta)

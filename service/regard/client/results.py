"""The server's messages, read into answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from regard.answers import (
    Alignment,
    AnsweredQuestion,
    AnswerSpan,
    Attention,
    AttentionMap,
    Caption,
    Classification,
    ClassifiedToken,
    ClassProbability,
    ComparedImage,
    ComparedText,
    Completion,
    Entity,
    GeneratedSequence,
    GeneratedToken,
    Link,
    Model,
    ModelVersion,
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
from regard.client.failures import Failure
from regard.v1 import (
    alignment_pb2,
    attention_pb2,
    caption_pb2,
    classification_pb2,
    completion_pb2,
    generation_pb2,
    model_pb2,
    question_answering_pb2,
    result_pb2,
    similarity_pb2,
    transcription_pb2,
    translation_pb2,
)

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Comparison:
    """Images beside texts; an input that failed has its failure in its place."""

    images: tuple[ComparedImage | Failure, ...]
    texts: tuple[ComparedText | Failure, ...]
    model: ModelVersion

    @property
    def logits(self) -> npt.NDArray[np.float64]:
        """How alike each image is to each text, [images, texts]; NaN where either failed."""
        return self._matrix("logit")

    @property
    def probabilities(self) -> npt.NDArray[np.float64]:
        """The probabilities [images, texts]; NaN where either failed."""
        return self._matrix("probability")

    def _matrix(self, name: str) -> npt.NDArray[np.float64]:
        matrix = np.full((len(self.images), len(self.texts)), np.nan)
        for row, image in zip(matrix, self.images, strict=True):
            for score in image.scores if isinstance(image, ComparedImage) else ():
                row[score.text_index] = getattr(score, name)
        return matrix


def read_translations(response: translation_pb2.TranslateResponse, first_index: int) -> list[Translation | Failure]:
    """Read the results of a request whose first text is the caller's text `first_index`."""
    model = _model_version(response.model)
    return [
        read_failure(result.failure, "texts", first_index)
        if result.HasField("failure")
        else read_translation(result.translation, model)
        for result in response.results
    ]


def read_classifications(
    response: classification_pb2.ClassifyResponse, first_index: int
) -> list[Classification | Failure]:
    """Read the results of a request whose first input is the caller's input `first_index`."""
    model = _model_version(response.model)
    return [
        read_failure(result.failure, "inputs", first_index)
        if result.HasField("failure")
        else _read_classification(result.classification, model)
        for result in response.results
    ]


def read_token_classifications(
    response: classification_pb2.ClassifyTokensResponse, first_index: int
) -> list[TokenClassification | Failure]:
    """Read the results of a request whose first text is the caller's text `first_index`."""
    model = _model_version(response.model)
    return [
        read_failure(result.failure, "texts", first_index)
        if result.HasField("failure")
        else _read_token_classification(result.classification, model)
        for result in response.results
    ]


def _read_token_classification(
    classification: classification_pb2.TokenClassification, model: ModelVersion
) -> TokenClassification:
    return TokenClassification(
        tokens=tuple(
            ClassifiedToken(
                token=one.token,
                token_id=one.token_id,
                index=one.index,
                start=one.start,
                end=one.end,
                classes=_read_classes(one.classes),
            )
            for one in classification.tokens
        ),
        entities=tuple(
            Entity(label=one.label, score=one.score, text=one.text, start=one.start, end=one.end)
            for one in classification.entities
        ),
        source_tokens=classification.source_tokens,
        truncated=classification.truncated,
        attention=_read_attention(classification.attention) if classification.HasField("attention") else None,
        timing=_read_timing(classification.timing),
        model=model,
    )


def read_answered_questions(
    response: question_answering_pb2.AnswerResponse, first_index: int
) -> list[AnsweredQuestion | Failure]:
    """Read the results of a request whose first question is the caller's question `first_index`."""
    model = _model_version(response.model)
    return [
        read_failure(result.failure, "inputs", first_index)
        if result.HasField("failure")
        else _read_answered_question(result.answered, model)
        for result in response.results
    ]


def _read_answered_question(answered: question_answering_pb2.AnsweredQuestion, model: ModelVersion) -> AnsweredQuestion:
    return AnsweredQuestion(
        answers=tuple(
            AnswerSpan(text=one.text, score=one.score, start=one.start, end=one.end) for one in answered.answers
        ),
        null_score=answered.null_score,
        windows=answered.windows,
        source_tokens=answered.source_tokens,
        attention=_read_attention(answered.attention) if answered.HasField("attention") else None,
        timing=_read_timing(answered.timing),
        model=model,
    )


def read_comparison(response: similarity_pb2.CompareResponse) -> Comparison:
    """Read the results of a comparison."""
    return Comparison(
        images=tuple(
            read_failure(result.failure, "images", 0) if result.HasField("failure") else _read_image(result.image)
            for result in response.images
        ),
        texts=tuple(
            read_failure(result.failure, "texts", 0) if result.HasField("failure") else _read_text(result.text)
            for result in response.texts
        ),
        model=_model_version(response.model),
    )


def _read_image(image: similarity_pb2.ComparedImage) -> ComparedImage:
    return ComparedImage(
        scores=tuple(TextScore(one.text_index, one.logit, one.probability) for one in image.scores),
        embedding=tuple(image.embedding),
        attention=_read_attention(image.attention) if image.HasField("attention") else None,
        timing=_read_timing(image.timing),
    )


def _read_text(text: similarity_pb2.ComparedText) -> ComparedText:
    return ComparedText(
        source_tokens=text.source_tokens,
        truncated=text.truncated,
        embedding=tuple(text.embedding),
        attention=_read_attention(text.attention) if text.HasField("attention") else None,
        timing=_read_timing(text.timing),
    )


def read_failure(failure: result_pb2.Failure, list_name: str, first_index: int) -> Failure:
    """Read a failure; the index in its field becomes the caller's, whatever request carried it."""
    field, message = failure.field, failure.message
    prefix = f"{list_name}["
    if first_index and field.startswith(prefix):
        index, bracket, rest = field.removeprefix(prefix).partition("]")
        if bracket and index.isdecimal():
            sent, own = f"{prefix}{index}]", f"{prefix}{int(index) + first_index}]"
            field, message = own + rest, message.replace(sent, own)
    retry_after_s = failure.retry_after_s if failure.HasField("retry_after_s") else None
    return Failure(code=failure.code, message=message, field=field, retry_after_s=retry_after_s)


def read_captions(response: caption_pb2.CaptionResponse, first_index: int) -> list[Caption | Failure]:
    """Read the results of a request whose first image is the caller's image `first_index`."""
    model = _model_version(response.model)
    return [
        read_failure(result.failure, "images", first_index)
        if result.HasField("failure")
        else read_caption(result.caption, model)
        for result in response.results
    ]


def read_caption(caption: caption_pb2.Caption, model: ModelVersion | None) -> Caption:
    """Read one caption."""
    return Caption(
        text=caption.text,
        finish_reason=_finish_reason(caption.finish_reason),
        target_tokens=caption.target_tokens,
        log_probability=caption.log_probability,
        attention=_read_attention(caption.attention) if caption.HasField("attention") else None,
        timing=_read_timing(caption.timing),
        model=model,
        score=caption.score,
        tokens=_read_tokens(caption.tokens),
        further_sequences=_read_sequences(caption.further_sequences),
    )


def read_caption_event(event: caption_pb2.StreamCaptionResponse) -> TokenDelta | Caption | Failure:
    """Read one event of the stream of one image."""
    if event.HasField("failure"):
        return read_failure(event.failure, "images", 0)
    if event.HasField("caption"):
        return read_caption(event.caption, None)
    return _read_delta(event.delta)


def read_completions(response: completion_pb2.CompleteResponse, first_index: int) -> list[Completion | Failure]:
    """Read the results of a request whose first prompt is the caller's prompt `first_index`."""
    model = _model_version(response.model)
    return [
        read_failure(result.failure, "prompts", first_index)
        if result.HasField("failure")
        else read_completion(result.completion, model)
        for result in response.results
    ]


def read_completion(completion: completion_pb2.Completion, model: ModelVersion | None) -> Completion:
    """Read one completion."""
    return Completion(
        text=completion.text,
        finish_reason=_finish_reason(completion.finish_reason),
        prompt_tokens=completion.prompt_tokens,
        target_tokens=completion.target_tokens,
        log_probability=completion.log_probability,
        attention=_read_attention(completion.attention) if completion.HasField("attention") else None,
        timing=_read_timing(completion.timing),
        model=model,
        score=completion.score,
        tokens=_read_tokens(completion.tokens),
        further_sequences=_read_sequences(completion.further_sequences),
    )


def read_completion_event(event: completion_pb2.StreamCompleteResponse) -> TokenDelta | Completion | Failure:
    """Read one event of the stream of one prompt."""
    if event.HasField("failure"):
        return read_failure(event.failure, "prompts", 0)
    if event.HasField("completion"):
        return read_completion(event.completion, None)
    return _read_delta(event.delta)


def _read_delta(delta: generation_pb2.TokenDelta) -> TokenDelta:
    return TokenDelta(token_id=delta.token_id, text=delta.text, log_probability=delta.log_probability)


def read_translation(translation: translation_pb2.Translation, model: ModelVersion | None) -> Translation:
    """Read one translation."""
    return Translation(
        text=translation.text,
        finish_reason=_finish_reason(translation.finish_reason),
        source_tokens=translation.source_tokens,
        target_tokens=translation.target_tokens,
        log_probability=translation.log_probability,
        truncated=translation.truncated,
        attention=_read_attention(translation.attention) if translation.HasField("attention") else None,
        timing=_read_timing(translation.timing),
        model=model,
        score=translation.score,
        tokens=_read_tokens(translation.tokens),
        further_sequences=_read_sequences(translation.further_sequences),
        alignment=_read_alignment(translation.alignment) if translation.HasField("alignment") else None,
    )


def _read_sequences(sequences: Iterable[generation_pb2.GeneratedSequence]) -> tuple[GeneratedSequence, ...]:
    return tuple(
        GeneratedSequence(
            text=sequence.text,
            finish_reason=_finish_reason(sequence.finish_reason),
            target_tokens=sequence.target_tokens,
            log_probability=sequence.log_probability,
            score=sequence.score,
            tokens=_read_tokens(sequence.tokens),
            attention=_read_attention(sequence.attention) if sequence.HasField("attention") else None,
            alignment=_read_alignment(sequence.alignment) if sequence.HasField("alignment") else None,
        )
        for sequence in sequences
    )


def _read_alignment(sent: alignment_pb2.Alignment) -> Alignment:
    sources, targets = tuple(map(_read_segment, sent.source_words)), tuple(map(_read_segment, sent.target_words))
    links = tuple(Link(sources[link.source_word], targets[link.target_word], link.weight) for link in sent.links)
    return Alignment(source_words=sources, target_words=targets, links=links)


def _read_tokens(tokens: Iterable[generation_pb2.GeneratedToken]) -> tuple[GeneratedToken, ...]:
    return tuple(
        GeneratedToken(
            token.token_id,
            token.token,
            token.log_probability,
            tuple(TokenLogprob(one.token_id, one.token, one.log_probability) for one in token.top_logprobs),
        )
        for token in tokens
    )


def _finish_reason(reason: generation_pb2.FinishReason.ValueType) -> str:
    return _name(generation_pb2.FinishReason.Name, reason, "FINISH_REASON_")


def read_event(event: translation_pb2.StreamTranslateResponse) -> TokenDelta | Translation | Failure:
    """Read one event of the stream of one text."""
    if event.HasField("failure"):
        return read_failure(event.failure, "texts", 0)
    if event.HasField("translation"):
        return read_translation(event.translation, None)
    return _read_delta(event.delta)


def read_transcriptions(
    response: transcription_pb2.TranscribeResponse, first_index: int
) -> list[Transcription | Failure]:
    """Read the results of a request whose first sound is the caller's sound `first_index`."""
    model = _model_version(response.model)
    return [
        read_failure(result.failure, "inputs", first_index)
        if result.HasField("failure")
        else read_transcription(result.transcription, model)
        for result in response.results
    ]


def read_transcription(sent: transcription_pb2.Transcription, model: ModelVersion | None) -> Transcription:
    """Read one transcription."""
    return Transcription(
        text=sent.text,
        language=sent.language,
        duration_s=sent.duration_s,
        segments=tuple(SpokenSegment(one.start_s, one.end_s, one.text) for one in sent.segments),
        windows=tuple(map(_read_window, sent.windows)),
        model=model,
    )


def read_transcription_event(
    event: transcription_pb2.StreamTranscribeResponse,
) -> TokenDelta | Transcription | Failure:
    """Read one event of the stream of one sound."""
    if event.HasField("failure"):
        return read_failure(event.failure, "inputs", 0)
    if event.HasField("transcription"):
        return read_transcription(event.transcription, None)
    return _read_delta(event.delta)


def _read_window(window: transcription_pb2.TranscriptionWindow) -> TranscriptionWindow:
    return TranscriptionWindow(
        start_s=window.start_s,
        end_s=window.end_s,
        text=window.text,
        finish_reason=_finish_reason(window.finish_reason),
        target_tokens=window.target_tokens,
        log_probability=window.log_probability,
        attention=_read_attention(window.attention) if window.HasField("attention") else None,
        timing=_read_timing(window.timing),
        score=window.score,
        tokens=_read_tokens(window.tokens),
        further_sequences=_read_sequences(window.further_sequences),
    )


def read_models(response: model_pb2.ListModelsResponse) -> list[Model]:
    """Read the models of a server."""
    return [
        Model(
            name=model.name,
            version=model.version,
            task=_name(model_pb2.Task.Name, model.task, "TASK_"),
            architecture=model.architecture,
            precision=model.precision,
            package_sha256=model.package_sha256,
            max_source_tokens=model.max_source_tokens,
            max_target_tokens=model.max_target_tokens,
            taps=tuple(
                Tap(kind=_kind(tap.kind), stack=_stack(tap.stack), layer=tap.layer, heads=tap.heads)
                for tap in model.taps
            ),
            labels=tuple(model.labels),
            ready=model.ready,
        )
        for model in response.models
    ]


def _read_classification(classification: classification_pb2.Classification, model: ModelVersion) -> Classification:
    return Classification(
        classes=_read_classes(classification.classes),
        out_of_scope=classification.out_of_scope,
        source_tokens=classification.source_tokens,
        truncated=classification.truncated,
        attention=_read_attention(classification.attention) if classification.HasField("attention") else None,
        timing=_read_timing(classification.timing),
        model=model,
    )


def _read_classes(classes: Iterable[classification_pb2.ClassProbability]) -> tuple[ClassProbability, ...]:
    return tuple(ClassProbability(label=one.label, index=one.index, probability=one.probability) for one in classes)


def _read_attention(attention: attention_pb2.Attention) -> Attention:
    axes = {axis.axis: axis for axis in attention.axes}
    return Attention(
        granularity=_name(attention_pb2.AttentionGranularity.Name, attention.granularity, "ATTENTION_GRANULARITY_"),
        maps=tuple(_read_map(one, axes[one.query_axis], axes[one.key_axis]) for one in attention.maps),
        package_sha256=attention.package_sha256,
        precision=attention.precision,
    )


def _read_map(sent: attention_pb2.AttentionMap, queries: attention_pb2.Axis, keys: attention_pb2.Axis) -> AttentionMap:
    return AttentionMap(
        kind=_kind(sent.kind),
        stack=_stack(sent.stack),
        layer=sent.layer,
        heads=tuple(sent.heads),
        reduction=_name(attention_pb2.AttentionReduction.Name, sent.reduction, "ATTENTION_REDUCTION_"),
        query_axis=_axis(sent.query_axis),
        key_axis=_axis(sent.key_axis),
        queries=tuple(map(_read_segment, queries.segments)),
        keys=tuple(map(_read_segment, keys.segments)),
        weights=np.frombuffer(sent.weights, dtype="<f4").astype(np.float32, copy=False).reshape(tuple(sent.shape)),
        query_grid=_read_grid(queries),
        key_grid=_read_grid(keys),
        query_frames=_read_frames(queries),
        key_frames=_read_frames(keys),
    )


def _read_frames(axis: attention_pb2.Axis) -> SoundFrames | None:
    if not axis.HasField("frames"):
        return None
    return SoundFrames(axis.frames.start_s, axis.frames.end_s, axis.frames.seconds_per_frame)


def _read_grid(axis: attention_pb2.Axis) -> PatchGrid | None:
    if not axis.HasField("grid"):
        return None
    grid = axis.grid
    return PatchGrid(
        rows=grid.rows,
        columns=grid.columns,
        image_width=grid.image_width,
        image_height=grid.image_height,
        left=grid.left,
        top=grid.top,
        width=grid.width,
        height=grid.height,
    )


def _read_segment(segment: attention_pb2.Segment) -> Segment:
    return Segment(
        text=segment.text,
        start=segment.start,
        end=segment.end,
        special=segment.special,
        token_id=segment.token_id if segment.HasField("token_id") else None,
        part=segment.part,
    )


def _read_timing(timing: result_pb2.Timing) -> Timing:
    return Timing(queue_s=timing.queue_s, encode_s=timing.encode_s, decode_s=timing.decode_s)


def _model_version(model: result_pb2.ModelVersion) -> ModelVersion:
    return ModelVersion(name=model.name, version=model.version)


def _kind(value: attention_pb2.AttentionKind.ValueType) -> str:
    return _name(attention_pb2.AttentionKind.Name, value, "ATTENTION_KIND_")


def _stack(value: attention_pb2.AttentionStack.ValueType) -> str:
    return _name(attention_pb2.AttentionStack.Name, value, "ATTENTION_STACK_")


def _axis(value: attention_pb2.AttentionAxis.ValueType) -> str:
    return _name(attention_pb2.AttentionAxis.Name, value, "ATTENTION_AXIS_")


def _name(name_of: Callable[[R], str], value: R, prefix: str) -> str:
    """Return an enum value's name without the prefix that every value of its enum has."""
    try:
        return name_of(value).removeprefix(prefix).lower()
    except ValueError:  # a value that a newer server knows
        return f"unknown_{value}"

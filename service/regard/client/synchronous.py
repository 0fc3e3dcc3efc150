"""The client for threads."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar, Unpack

import grpc

from regard.answers import (
    AnsweredQuestion,
    Caption,
    ClassAttribution,
    Classification,
    Completion,
    Model,
    OutputAttribution,
    TokenClassification,
    TokenDelta,
    Transcription,
    Translation,
    TranslationScore,
)
from regard.client import requests, results
from regard.client.channel import (
    DEFAULT_TARGET,
    DEFAULT_TIMEOUT_S,
    INPUTS_PER_REQUEST,
    REQUESTS_IN_FLIGHT,
    channel_options,
)
from regard.client.failures import Failure, RequestFailed, concerns_inputs_only, failed
from regard.client.patience import Patience, refused_runs
from regard.client.requests import (
    AnswerOptions,
    AttributeClassOptions,
    AttributeOutputOptions,
    AttributeTranslationOptions,
    CaptionOptions,
    ClassifyOptions,
    ClassifyTokensOptions,
    CompareOptions,
    CompleteOptions,
    Described,
    Image,
    Pair,
    ScoreTranslationOptions,
    Sound,
    TranscribeOptions,
    TranslateOptions,
)
from regard.client.results import Comparison
from regard.client.throttle import Throttle
from regard.v1 import (
    attribution_pb2_grpc,
    caption_pb2_grpc,
    classification_pb2_grpc,
    completion_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
    question_answering_pb2_grpc,
    similarity_pb2_grpc,
    transcription_pb2_grpc,
    translation_pb2_grpc,
)

if TYPE_CHECKING:
    from regard.report import Answer, Input

A = TypeVar("A")
P = TypeVar("P")
R = TypeVar("R")


class Client:
    """Calls a Regard server at `target`; safe to share between threads.

    `timeout_s` is the deadline of every request (None waits for ever). Many inputs are split into
    requests of at most `inputs_per_request`, which should not exceed the server's limit, and
    `requests_in_flight` of them run at a time. `credentials` make the connection TLS. While the server
    refuses most of what it is sent, a client that is `throttled` sends about twice as much as the server takes, and
    fails the rest by itself with the same code, RESOURCE_EXHAUSTED (`regard.client.throttle` tells how). For
    `patience_s` what is refused so is sent again, when the server says that it may have room, and later each time;
    streams are not.
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
        inputs_per_request: int = INPUTS_PER_REQUEST,
        requests_in_flight: int = REQUESTS_IN_FLIGHT,
        credentials: grpc.ChannelCredentials | None = None,
        throttled: bool = True,
        patience_s: float = 0.0,
    ) -> None:
        self._target = target
        self._throttle = Throttle() if throttled else Throttle(free=math.inf)
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._inputs_per_request = inputs_per_request
        self._requests_in_flight = requests_in_flight
        options = channel_options(target)
        self._channel = (
            grpc.insecure_channel(target, options)
            if credentials is None
            else grpc.secure_channel(target, credentials, options)
        )
        self._translation = translation_pb2_grpc.TranslationServiceStub(self._channel)
        self._captioning = caption_pb2_grpc.CaptionServiceStub(self._channel)
        self._classification = classification_pb2_grpc.ClassificationServiceStub(self._channel)
        self._answering = question_answering_pb2_grpc.QuestionAnsweringServiceStub(self._channel)
        self._similarity = similarity_pb2_grpc.SimilarityServiceStub(self._channel)
        self._completion = completion_pb2_grpc.CompletionServiceStub(self._channel)
        self._transcription = transcription_pb2_grpc.TranscriptionServiceStub(self._channel)
        self._attribution = attribution_pb2_grpc.AttributionServiceStub(self._channel)
        self._models = model_pb2_grpc.ModelServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; what still runs is cancelled."""
        self._channel.close()

    def translate(self, text: str, **options: Unpack[TranslateOptions]) -> Translation:
        """Translate one text, or raise `RequestFailed`."""
        return _one(self.translate_each([text], **options))

    def translate_many(self, texts: Iterable[str], **options: Unpack[TranslateOptions]) -> list[Translation | Failure]:
        """Translate many texts, each to its translation or the reason why it has none.

        Raises `RequestFailed` for what no text could escape: an unknown model, options that the
        model lacks, a server out of reach.
        """
        return list(self.translate_each(texts, **options))

    def translate_each(
        self, texts: Iterable[str], **options: Unpack[TranslateOptions]
    ) -> Iterator[Translation | Failure]:
        """Do as `translate_many`, but read `texts` and yield results as the work goes on, in order."""
        parts = requests.split(texts, self._inputs_per_request, "texts", requests.read_text)
        return self._each(
            parts,
            lambda part: self._translation.Translate.future(
                requests.translate_request(part, options), timeout=self._timeout_s
            ),
            results.read_translations,
        )

    def stream_translate(self, text: str, **options: Unpack[TranslateOptions]) -> Iterator[TokenDelta | Translation]:
        """Translate one text: yield a delta for each token, and last the whole translation.

        Leaving the iteration early, with `close()` or by dropping the iterator, cancels the request.
        """
        return self._stream(
            lambda: self._translation.StreamTranslate(
                requests.stream_translate_request(text, options), timeout=self._timeout_s
            ),
            results.read_event,
        )

    def score_translation(self, text: str, target: str, **options: Unpack[ScoreTranslationOptions]) -> TranslationScore:
        """Tell how likely the model finds a translation that is given, or raise `RequestFailed`."""
        return _one(self.score_translation_each([(text, target)], **options))

    def score_translation_many(
        self, pairs: Iterable[Pair], **options: Unpack[ScoreTranslationOptions]
    ) -> list[TranslationScore | Failure]:
        """Score many translations, each a tuple of a text and its translation; failures are as in `translate_many`."""
        return list(self.score_translation_each(pairs, **options))

    def score_translation_each(
        self, pairs: Iterable[Pair], **options: Unpack[ScoreTranslationOptions]
    ) -> Iterator[TranslationScore | Failure]:
        """Do as `score_translation_many`, but read `pairs` and yield results as the work goes on, in order."""
        parts = requests.split(pairs, self._inputs_per_request, "pairs", requests.read_pair)
        return self._each(
            parts,
            lambda part: self._translation.ScoreTranslation.future(
                requests.score_translation_request(part, options), timeout=self._timeout_s
            ),
            results.read_translation_scores,
        )

    def complete(self, prompt: str, **options: Unpack[CompleteOptions]) -> Completion:
        """Complete one prompt, or raise `RequestFailed`."""
        return _one(self.complete_each([prompt], **options))

    def complete_many(self, prompts: Iterable[str], **options: Unpack[CompleteOptions]) -> list[Completion | Failure]:
        """Complete many prompts, each to its completion or the reason why it has none.

        Raises `RequestFailed` for what no prompt could escape: an unknown model, options that the
        model lacks, a server out of reach.
        """
        return list(self.complete_each(prompts, **options))

    def complete_each(
        self, prompts: Iterable[str], **options: Unpack[CompleteOptions]
    ) -> Iterator[Completion | Failure]:
        """Do as `complete_many`, but read `prompts` and yield results as the work goes on, in order."""
        parts = requests.split(prompts, self._inputs_per_request, "prompts", requests.read_text)
        return self._each(
            parts,
            lambda part: self._completion.Complete.future(
                requests.complete_request(part, options), timeout=self._timeout_s
            ),
            results.read_completions,
        )

    def stream_complete(self, prompt: str, **options: Unpack[CompleteOptions]) -> Iterator[TokenDelta | Completion]:
        """Complete one prompt: yield a delta for each token, and last the whole completion.

        Leaving the iteration early, with `close()` or by dropping the iterator, cancels the request.
        """
        return self._stream(
            lambda: self._completion.StreamComplete(
                requests.stream_complete_request(prompt, options), timeout=self._timeout_s
            ),
            results.read_completion_event,
        )

    def caption(self, image: Image, **options: Unpack[CaptionOptions]) -> Caption:
        """Caption one image, which is its bytes or its `Path`, or raise `RequestFailed`."""
        return _one(self.caption_each([image], **options))

    def caption_many(self, images: Iterable[Image], **options: Unpack[CaptionOptions]) -> list[Caption | Failure]:
        """Caption many images; failures are as in `translate_many`. Raises `OSError` for a file that can't be read."""
        return list(self.caption_each(images, **options))

    def caption_each(self, images: Iterable[Image], **options: Unpack[CaptionOptions]) -> Iterator[Caption | Failure]:
        """Do as `caption_many`, but read `images` and yield results as the work goes on, in order."""
        parts = requests.split(images, self._inputs_per_request, "images", requests.read_image)
        return self._each(
            parts,
            lambda part: self._captioning.Caption.future(
                requests.caption_request(part, options), timeout=self._timeout_s
            ),
            results.read_captions,
        )

    def stream_caption(self, image: Image, **options: Unpack[CaptionOptions]) -> Iterator[TokenDelta | Caption]:
        """Caption one image: yield a delta for each token, and last the whole caption, as `stream_translate` does."""
        return self._stream(
            lambda: self._captioning.StreamCaption(
                requests.stream_caption_request(image, options), timeout=self._timeout_s
            ),
            results.read_caption_event,
        )

    def transcribe(self, sound: Sound, **options: Unpack[TranscribeOptions]) -> Transcription:
        """Transcribe one sound, which is an audio file's bytes or `Path`, or `Samples`; or raise `RequestFailed`."""
        return _one(self.transcribe_each([sound], **options))

    def transcribe_many(
        self, sounds: Iterable[Sound], **options: Unpack[TranscribeOptions]
    ) -> list[Transcription | Failure]:
        """Transcribe many sounds, each to its transcription or the reason why it has none."""
        return list(self.transcribe_each(sounds, **options))

    def transcribe_each(
        self, sounds: Iterable[Sound], **options: Unpack[TranscribeOptions]
    ) -> Iterator[Transcription | Failure]:
        """Do as `transcribe_many`, but read `sounds` and yield results as the work goes on, in order."""
        parts = requests.split(sounds, self._inputs_per_request, "inputs", requests.read_sound)
        return self._each(
            parts,
            lambda part: self._transcription.Transcribe.future(
                requests.transcribe_request(part, options), timeout=self._timeout_s
            ),
            results.read_transcriptions,
        )

    def stream_transcribe(
        self, sound: Sound, **options: Unpack[TranscribeOptions]
    ) -> Iterator[TokenDelta | Transcription]:
        """Transcribe one sound: yield a delta for each token, and last the whole, as `stream_translate` does."""
        return self._stream(
            lambda: self._transcription.StreamTranscribe(
                requests.stream_transcribe_request(sound, options), timeout=self._timeout_s
            ),
            results.read_transcription_event,
        )

    def classify(self, given: str | Pair | Image, **options: Unpack[ClassifyOptions]) -> Classification:
        """Classify one text, pair of texts or image, or raise `RequestFailed`; an image is its bytes or its `Path`."""
        return _one(self.classify_each([given], **options))

    def classify_many(
        self, inputs: Iterable[str | Pair | Image], **options: Unpack[ClassifyOptions]
    ) -> list[Classification | Failure]:
        """Classify many texts or images; failures are as in `translate_many`."""
        return list(self.classify_each(inputs, **options))

    def classify_each(
        self, inputs: Iterable[str | Pair | Image], **options: Unpack[ClassifyOptions]
    ) -> Iterator[Classification | Failure]:
        """Do as `classify_many`, but read `inputs` and yield results as the work goes on, in order."""
        parts = requests.split(inputs, self._inputs_per_request, "inputs", requests.read_input)
        return self._each(
            parts,
            lambda part: self._classification.Classify.future(
                requests.classify_request(part, options), timeout=self._timeout_s
            ),
            results.read_classifications,
        )

    def classify_tokens(self, text: str, **options: Unpack[ClassifyTokensOptions]) -> TokenClassification:
        """Classify every token of one text, or raise `RequestFailed`."""
        return _one(self.classify_tokens_each([text], **options))

    def classify_tokens_many(
        self, texts: Iterable[str], **options: Unpack[ClassifyTokensOptions]
    ) -> list[TokenClassification | Failure]:
        """Classify every token of many texts; failures are as in `translate_many`."""
        return list(self.classify_tokens_each(texts, **options))

    def classify_tokens_each(
        self, texts: Iterable[str], **options: Unpack[ClassifyTokensOptions]
    ) -> Iterator[TokenClassification | Failure]:
        """Do as `classify_tokens_many`, but read `texts` and yield results as the work goes on, in order."""
        parts = requests.split(texts, self._inputs_per_request, "texts", requests.read_text)
        return self._each(
            parts,
            lambda part: self._classification.ClassifyTokens.future(
                requests.classify_tokens_request(part, options), timeout=self._timeout_s
            ),
            results.read_token_classifications,
        )

    def attribute_class(self, given: str | Pair | Image, **options: Unpack[AttributeClassOptions]) -> ClassAttribution:
        """Tell which parts of one text, pair of texts or image made a class likely, or raise `RequestFailed`."""
        return _one(self.attribute_class_each([given], **options))

    def attribute_class_many(
        self, inputs: Iterable[str | Pair | Image], **options: Unpack[AttributeClassOptions]
    ) -> list[ClassAttribution | Failure]:
        """Tell which parts of many texts or images made a class likely; failures are as in `translate_many`."""
        return list(self.attribute_class_each(inputs, **options))

    def attribute_class_each(
        self, inputs: Iterable[str | Pair | Image], **options: Unpack[AttributeClassOptions]
    ) -> Iterator[ClassAttribution | Failure]:
        """Do as `attribute_class_many`, but read `inputs` and yield results as the work goes on, in order."""
        parts = requests.split(inputs, self._inputs_per_request, "inputs", requests.read_input)
        return self._each(
            parts,
            lambda part: self._attribution.AttributeClass.future(
                requests.attribute_class_request(part, options), timeout=self._timeout_s
            ),
            results.read_class_attributions,
        )

    def attribute_translation(
        self, given: str | Pair, **options: Unpack[AttributeTranslationOptions]
    ) -> OutputAttribution:
        """Tell which parts of one text made each word of its translation likely, or raise `RequestFailed`.

        A pair is a text and the translation to explain; of a text alone it is the model's own.
        """
        return _one(self.attribute_translation_each([given], **options))

    def attribute_translation_many(
        self, inputs: Iterable[str | Pair], **options: Unpack[AttributeTranslationOptions]
    ) -> list[OutputAttribution | Failure]:
        """Do as `attribute_translation` for many texts; failures are as in `translate_many`."""
        return list(self.attribute_translation_each(inputs, **options))

    def attribute_translation_each(
        self, inputs: Iterable[str | Pair], **options: Unpack[AttributeTranslationOptions]
    ) -> Iterator[OutputAttribution | Failure]:
        """Do as `attribute_translation_many`, but read `inputs` and yield results as the work goes on, in order."""
        parts = requests.split(inputs, self._inputs_per_request, "inputs", requests.read_translated)
        return self._each(
            parts,
            lambda part: self._attribution.AttributeTranslation.future(
                requests.attribute_translation_request(part, options), timeout=self._timeout_s
            ),
            results.read_output_attributions,
        )

    def attribute_caption(
        self, given: Image | Described, **options: Unpack[AttributeOutputOptions]
    ) -> OutputAttribution:
        """Tell which parts of one image made each word of its caption likely, or raise `RequestFailed`.

        With a caption, that is explained; of an image alone, which is its bytes or its `Path`, the model's own.
        """
        return _one(self.attribute_caption_each([given], **options))

    def attribute_caption_many(
        self, inputs: Iterable[Image | Described], **options: Unpack[AttributeOutputOptions]
    ) -> list[OutputAttribution | Failure]:
        """Do as `attribute_caption` for many images; failures are as in `translate_many`."""
        return list(self.attribute_caption_each(inputs, **options))

    def attribute_caption_each(
        self, inputs: Iterable[Image | Described], **options: Unpack[AttributeOutputOptions]
    ) -> Iterator[OutputAttribution | Failure]:
        """Do as `attribute_caption_many`, but read `inputs` and yield results as the work goes on, in order."""
        parts = requests.split(inputs, self._inputs_per_request, "inputs", requests.read_captioned)
        return self._each(
            parts,
            lambda part: self._attribution.AttributeCaption.future(
                requests.attribute_caption_request(part, options), timeout=self._timeout_s
            ),
            results.read_output_attributions,
        )

    def answer(self, question: str, context: str, **options: Unpack[AnswerOptions]) -> AnsweredQuestion:
        """Find the answer to one question in its context, or raise `RequestFailed`."""
        return _one(self.answer_each([(question, context)], **options))

    def answer_many(
        self, questions: Iterable[Pair], **options: Unpack[AnswerOptions]
    ) -> list[AnsweredQuestion | Failure]:
        """Answer many questions, each a tuple with its context; failures are as in `translate_many`."""
        return list(self.answer_each(questions, **options))

    def answer_each(
        self, questions: Iterable[Pair], **options: Unpack[AnswerOptions]
    ) -> Iterator[AnsweredQuestion | Failure]:
        """Do as `answer_many`, but read `questions` and yield results as the work goes on, in order."""
        parts = requests.split(questions, self._inputs_per_request, "inputs", requests.read_pair)
        return self._each(
            parts,
            lambda part: self._answering.Answer.future(requests.answer_request(part, options), timeout=self._timeout_s),
            results.read_answered_questions,
        )

    def compare(self, images: Iterable[Image], texts: Iterable[str], **options: Unpack[CompareOptions]) -> Comparison:
        """Compare every image with every text, in one request; an input that fails has its failure in its place."""
        request = requests.compare_request(images, texts, options)
        self._throttle.check()
        try:
            compared = self._similarity.Compare(request, timeout=self._timeout_s)
        except grpc.RpcError as rpc_error:
            raise self._failed(rpc_error) from rpc_error
        self._throttle.answered()
        return results.read_comparison(compared)

    def report(self, path: str | Path, answers: Iterable[tuple[Input, Answer | Failure]]) -> None:
        """Write a page on which a person looks at the attention of `answers`, each beside its input.

            texts = ["The house is old.", "Where is the station?"]
            attention = AttentionOptions(granularity="word")
            client.report("attention.html", zip(texts, client.translate_many(texts, attention=attention)))

        An input is a text, or an image as its bytes or its `Path`; failures are left out. Raises `ReportError` for
        answers that no page can be made of, and `OSError` for a file that can't be written.
        """
        from regard.report import write_report

        write_report(path, [(given, answer) for given, answer in answers if not isinstance(answer, Failure)])

    def models(self) -> list[Model]:
        """Return every model of the server, in order of name and version."""
        try:
            return results.read_models(self._models.ListModels(model_pb2.ListModelsRequest(), timeout=self._timeout_s))
        except grpc.RpcError as error:
            raise failed(error, self._target, self._timeout_s) from error

    def _stream(
        self,
        start: Callable[[], grpc._CallIterator[A]],
        read: Callable[[A], R | Failure],
    ) -> Iterator[R]:
        self._throttle.check()
        call, begun = start(), False
        try:
            for sent in call:
                if not begun:
                    begun = True
                    self._throttle.answered()
                event = read(sent)
                if isinstance(event, Failure):
                    raise RequestFailed(event)
                yield event
        except grpc.RpcError as rpc_error:
            raise self._failed(rpc_error, begun=begun) from rpc_error
        finally:
            call.cancel()

    def _each(
        self,
        parts: Iterable[tuple[int, list[P]]],
        start: Callable[[list[P]], grpc.Future[A]],
        read: Callable[[A, int], list[R | Failure]],
    ) -> Iterator[R | Failure]:
        running: deque[tuple[int, list[P], grpc.Future[A] | Failure]] = deque()
        try:
            for first_index, part in parts:
                if len(running) == self._requests_in_flight:
                    yield from self._finish(*running.popleft(), start, read)
                running.append((first_index, part, self._throttle.refusal() or start(part)))
            while running:
                yield from self._finish(*running.popleft(), start, read)
        finally:
            for _, _, call in running:
                if not isinstance(call, Failure):
                    call.cancel()

    def _finish(
        self,
        first_index: int,
        part: list[P],
        call: grpc.Future[A] | Failure,
        start: Callable[[list[P]], grpc.Future[A]],
        read: Callable[[A, int], list[R | Failure]],
    ) -> list[R | Failure]:
        """Return the answers to a part; as long as the client is patient, what is refused of it is sent again."""
        patience = Patience(self._patience_s)
        answers = self._answers(first_index, len(part), call, read)
        while (wait_s := patience.wait_s(answers)) is not None:
            time.sleep(wait_s)
            for run in refused_runs(answers):
                call = self._throttle.refusal() or start(part[run])
                answers[run] = self._answers(first_index + run.start, len(part[run]), call, read)
        return answers

    def _answers(
        self, first_index: int, inputs: int, call: grpc.Future[A] | Failure, read: Callable[[A, int], list[R | Failure]]
    ) -> list[R | Failure]:
        if isinstance(call, Failure):
            return [call] * inputs
        try:
            answer = call.result()
        except grpc.RpcError as rpc_error:
            error = self._failed(rpc_error)
            if not concerns_inputs_only(error):
                raise error from rpc_error
            return [error.failure] * inputs
        self._throttle.answered()
        return read(answer, first_index)

    def _failed(self, rpc_error: grpc.RpcError, *, begun: bool = False) -> RequestFailed:
        """Return what a broken call means; the throttle counts it, unless it counted the answer that had `begun`."""
        error = failed(rpc_error, self._target, self._timeout_s)
        if not begun:
            self._throttle.answered(error)
        return error


def _one(answers: Iterator[R | Failure]) -> R:
    answer = next(answers)
    if isinstance(answer, Failure):
        raise RequestFailed(answer)
    return answer

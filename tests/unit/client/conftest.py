"""A gRPC server with canned answers, for clients to be tested against."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import grpc
import numpy as np
import pytest
from PIL import Image

from regard.v1 import (
    attention_pb2,
    attribution_pb2,
    attribution_pb2_grpc,
    caption_pb2,
    caption_pb2_grpc,
    classification_pb2,
    classification_pb2_grpc,
    completion_pb2,
    completion_pb2_grpc,
    generation_pb2,
    model_pb2,
    model_pb2_grpc,
    quality_pb2,
    result_pb2,
    translation_pb2,
    translation_pb2_grpc,
)

MODEL = result_pb2.ModelVersion(name="shout", version="1")
LAYERS, HEADS = 2, 3


@dataclass
class CannedServer:
    """Translates by shouting, refuses the text `bad`, and can be told to be unavailable or slow."""

    port: int = 0
    requests: list[object] = field(default_factory=list)
    refusals: list[grpc.StatusCode] = field(default_factory=list)
    """The codes that the next calls end with, before any is answered."""
    pushback_ms: str = ""
    """When to try again, as refusals tell it; they tell nothing if it is empty."""
    full_for: list[str] = field(default_factory=list)
    """Texts to translate that there is no room for, each once."""
    held: threading.Event = field(default_factory=threading.Event)
    """Answers wait for it; set unless a test clears it."""
    running: int = 0
    most_running: int = 0
    cancelled: threading.Event = field(default_factory=threading.Event)
    changed: threading.Condition = field(default_factory=threading.Condition)

    @property
    def target(self) -> str:
        """What a client connects to."""
        return f"localhost:{self.port}"

    def admit(self, request: object, context: grpc.ServicerContext) -> None:
        """Count a call, end it if it is to be refused, and hold it for as long as calls are held."""
        with self.changed:
            self.requests.append(request)
            refusal = self.refusals.pop(0) if self.refusals else None
            self.running += 1
            self.most_running = max(self.most_running, self.running)
            self.changed.notify_all()
        context.add_callback(self._ended)
        if refusal is not None:
            if self.pushback_ms:
                context.set_trailing_metadata((("grpc-retry-pushback-ms", self.pushback_ms),))
            context.abort(refusal, f"refused with {refusal.name}")
        self.held.wait(10)

    def wait_running(self, requests: int) -> None:
        """Return when so many requests are being answered."""
        with self.changed:
            assert self.changed.wait_for(lambda: self.running == requests, 10)

    def _ended(self) -> None:
        with self.changed:
            self.running -= 1


class _Translation(translation_pb2_grpc.TranslationServiceServicer):
    def __init__(self, server: CannedServer) -> None:
        self._server = server

    def ScoreTranslation(self, request, context):  # noqa: N802
        self._server.admit(request, context)
        results = [_score(pair, place) for place, pair in enumerate(request.pairs)]
        return translation_pb2.ScoreTranslationResponse(model=MODEL, results=results)

    def Translate(self, request, context):  # noqa: N802
        self._server.admit(request, context)
        results = []
        for index, text in enumerate(request.texts):
            if text in self._server.full_for:
                self._server.full_for.remove(text)
                full = result_pb2.Failure(code=8, message="no room", retry_after_s=0.01)
                results.append(translation_pb2.TranslationResult(failure=full))
            elif text == "bad":
                results.append(translation_pb2.TranslationResult(failure=_failure(f"texts[{index}]")))
            else:
                results.append(translation_pb2.TranslationResult(translation=_translation(text, request)))
        return translation_pb2.TranslateResponse(model=MODEL, results=results)

    def StreamTranslate(self, request, context):  # noqa: N802
        (text,) = request.texts
        if text == "bad":
            yield translation_pb2.StreamTranslateResponse(failure=_failure("texts[0]"))
            return
        if text == "endless":
            context.add_callback(self._server.cancelled.set)
        for token_id, character in enumerate(text.upper()):
            yield translation_pb2.StreamTranslateResponse(
                delta=generation_pb2.TokenDelta(token_id=token_id, text=character, log_probability=-0.5)
            )
            if text == "endless":
                self._server.cancelled.wait(10)
                return
        yield translation_pb2.StreamTranslateResponse(translation=_translation(text, request), model=MODEL)


class _Captioning(caption_pb2_grpc.CaptionServiceServicer):
    """Takes images that are texts, and captions them by shouting."""

    def __init__(self, server: CannedServer) -> None:
        self._server = server

    def Caption(self, request, context):  # noqa: N802
        self._server.admit(request, context)
        results = [
            caption_pb2.CaptionResult(failure=_failure(f"images[{index}]"))
            if image == b"bad"
            else caption_pb2.CaptionResult(caption=caption_pb2.Caption(text=image.decode().upper()))
            for index, image in enumerate(request.images)
        ]
        return caption_pb2.CaptionResponse(model=MODEL, results=results)


class _Completion(completion_pb2_grpc.CompletionServiceServicer):
    """Goes on with two lines."""

    def __init__(self, server: CannedServer) -> None:
        self._server = server

    def Complete(self, request, context):  # noqa: N802
        self._server.admit(request, context)
        results = [
            completion_pb2.CompletionResult(completion=completion_pb2.Completion(text=f" {prompt}\n\nagain "))
            for prompt in request.prompts
        ]
        return completion_pb2.CompleteResponse(model=MODEL, results=results)


class _Classification(classification_pb2_grpc.ClassificationServiceServicer):
    def __init__(self, server: CannedServer) -> None:
        self._server = server

    def Classify(self, request, context):  # noqa: N802
        self._server.admit(request, context)
        results = []
        for index, item in enumerate(request.inputs):
            if item.text == "bad":
                results.append(classification_pb2.ClassificationResult(failure=_failure(f"inputs[{index}].text")))
                continue
            if item.image == b"bad":
                results.append(classification_pb2.ClassificationResult(failure=_failure(f"inputs[{index}].image")))
                continue
            scope = item.text == "who invented the internet"
            classification = classification_pb2.Classification(
                classes=[
                    classification_pb2.ClassProbability(label="greeting", index=4, probability=0.75),
                    classification_pb2.ClassProbability(label="goodbye", index=2, probability=0.125),
                ][: request.top_k or 5],
                out_of_scope=scope,
                source_tokens=7,
            )
            if request.HasField("attention"):
                text = item.text or "0,0 0,1"
                classification.attention.CopyFrom(_attention(text, ["[CLS]"], ["[SEP]"], text, "SELF"))
                if item.image:
                    grid = attention_pb2.PatchGrid(
                        rows=1, columns=2, image_width=40, image_height=20, width=40, height=20
                    )
                    classification.attention.axes[0].grid.CopyFrom(grid)
            results.append(classification_pb2.ClassificationResult(classification=classification))
        return classification_pb2.ClassifyResponse(model=MODEL, results=results)

    def ClassifyTokens(self, request, context):  # noqa: N802
        self._server.admit(request, context)
        results = [
            classification_pb2.TokenClassificationResult(classification=_token_classification(text, request))
            for text in request.texts
        ]
        return classification_pb2.ClassifyTokensResponse(model=MODEL, results=results)


def _token_classification(text, request) -> classification_pb2.TokenClassification:
    """Return that words with a capital are names, and the others nothing."""
    found = classification_pb2.TokenClassification()
    for word in _axis(1, text, [], []).segments:
        label = "NAME" if word.text.istitle() else "O"
        token = found.tokens.add(token=word.text, start=word.start, end=word.end)
        token.classes.add(label=label, probability=0.75)
        if label == "NAME" and request.aggregation != classification_pb2.ENTITY_AGGREGATION_NONE:
            found.entities.add(label=label, score=0.75, text=word.text, start=word.start, end=word.end)
    return found


def _score(pair, place) -> translation_pb2.ScoreResult:
    if pair.text == "bad":
        return translation_pb2.ScoreResult(failure=_failure(f"pairs[{place}].text"))
    tokens = [
        generation_pb2.GeneratedToken(token_id=7, token=word, log_probability=-0.5) for word in pair.target.split()
    ]
    score = translation_pb2.TranslationScore(tokens=tokens, log_probability=-0.5 * len(tokens), source_tokens=3)
    return translation_pb2.ScoreResult(score=score)


class _Attribution(attribution_pb2_grpc.AttributionServiceServicer):
    """Says of every text that its first word speaks for the class, and its second against it."""

    def __init__(self, server: CannedServer) -> None:
        self._server = server

    def AttributeClass(self, request, context):  # noqa: N802
        self._server.admit(request, context)
        asked, results = request.attribution, []
        for item in request.inputs:
            source = _axis(1, item.text, [], [])
            weights = [0.5, -0.25, *[0.0] * len(source.segments)][: len(source.segments)]
            measured = attribution_pb2.Faithfulness(
                deletion_auc=0.25, insertion_auc=0.75, comprehensiveness=0.5, sufficiency=0.125
            )
            told = attribution_pb2.Attributions(source=source, cover="[MASK]", runs=9)
            for method in asked.methods or [1, 3]:
                told.methods.add(method=method, weights=weights, faithfulness=measured if asked.faithfulness else None)
            if asked.faithfulness:
                told.random.CopyFrom(measured)
            _knock_out(told, outcomes=0)
            if told.HasField("heads") and asked.faithfulness:
                told.heads.faithfulness.CopyFrom(measured)
                told.heads.random.CopyFrom(measured)
            greeting = classification_pb2.ClassProbability(label=request.label or "greeting", index=4, probability=0.75)
            attribution = attribution_pb2.ClassAttribution(explained=greeting, likeliest=greeting, attributions=told)
            results.append(attribution_pb2.ClassAttributionResult(attribution=attribution))
        return attribution_pb2.AttributeClassResponse(model=MODEL, results=results)

    def AttributeTranslation(self, request, context):  # noqa: N802
        self._server.admit(request, context)
        results = []
        for item in request.inputs:
            source = _axis(1, item.text, [], [])
            results.append(_output_attribution(source, item.target or item.text.upper(), request.attribution))
        return attribution_pb2.AttributeTranslationResponse(model=MODEL, results=results)

    def AttributeCaption(self, request, context):  # noqa: N802
        self._server.admit(request, context)
        grid = attention_pb2.PatchGrid(rows=1, columns=2, image_width=40, image_height=20, width=40, height=20)
        source = attention_pb2.Axis(
            segments=[attention_pb2.Segment(text=f"0,{column}") for column in (0, 1)], grid=grid
        )
        results = [_output_attribution(source, item.caption or "a cat", request.attribution) for item in request.inputs]
        return attribution_pb2.AttributeCaptionResponse(model=MODEL, results=results)


def _knock_out(told: attribution_pb2.Attributions, outcomes: int) -> None:
    """Tell of heads, not of parts, if that was asked for: the first head of each layer is worth 2, the second -0.05."""
    methods = [one for one in told.methods if one.method != 6]
    if len(methods) == len(told.methods):
        return
    del told.methods[:]
    told.methods.extend(methods)
    weights = np.zeros((max(outcomes, 1), LAYERS, HEADS))
    weights[0, :, :2] = [2.0, -0.05]
    told.heads.maps.add(
        kind=attention_pb2.ATTENTION_KIND_CROSS,
        stack=attention_pb2.ATTENTION_STACK_DECODER,
        layers=[0, 3],
        heads=HEADS,
        weights=weights.sum(axis=0).ravel(),
        target_weights=weights.ravel() if outcomes else (),
    )


def _output_attribution(source, output, asked) -> attribution_pb2.OutputAttributionResult:
    """Return that the first part speaks for the first word of an output, and the second against it."""
    target = _axis(2, output, [], ["</s>"])
    weights = np.zeros((len(target.segments), len(source.segments)))
    weights[0, :2] = [2.5, -1.5]
    told = attribution_pb2.Attributions(source=source, cover="<unk>", runs=5)
    for method in asked.methods or [2, 3]:
        overlay = asked.overlay and source.HasField("grid")
        told.methods.add(
            method=method,
            weights=weights.sum(axis=0),
            target_weights=weights.ravel(),
            overlay=png(Image.new("RGB", (512, 256), "white")) if overlay else b"",
        )
    _knock_out(told, outcomes=len(target.segments))
    attribution = attribution_pb2.OutputAttribution(
        text=output,
        tokens=[generation_pb2.GeneratedToken(token_id=7, token="_A", log_probability=-0.5)],
        log_probability=-0.5,
        target=target,
        attributions=told,
    )
    return attribution_pb2.OutputAttributionResult(attribution=attribution)


def png(picture: Image.Image) -> bytes:
    """Return a picture as a PNG file."""
    written = io.BytesIO()
    picture.save(written, "PNG")
    return written.getvalue()


class _Models(model_pb2_grpc.ModelServiceServicer):
    def ListModels(self, request, context):  # noqa: N802
        tap = model_pb2.Tap(
            kind=attention_pb2.ATTENTION_KIND_CROSS, stack=attention_pb2.ATTENTION_STACK_DECODER, layer=0, heads=HEADS
        )
        return model_pb2.ListModelsResponse(
            models=[
                model_pb2.Model(
                    name="shout",
                    version="1",
                    task=model_pb2.TASK_TRANSLATION,
                    architecture="Shouter",
                    precision="fp32",
                    package_sha256="ab" * 32,
                    max_source_tokens=128,
                    max_target_tokens=64,
                    taps=[tap],
                    ready=True,
                    takes_interventions=True,
                )
            ]
        )


def _failure(field_name: str) -> result_pb2.Failure:
    return result_pb2.Failure(code=3, message=f"{field_name} is bad; send a better one", field=field_name)


def _translation(text, request) -> translation_pb2.Translation:
    translation = translation_pb2.Translation(
        text=text.upper(),
        finish_reason=generation_pb2.FINISH_REASON_END_OF_SENTENCE,
        source_tokens=len(text.split()) + 1,
        target_tokens=len(text.split()) + 1,
        log_probability=-1.5,
        timing=result_pb2.Timing(queue_s=0.25, encode_s=0.5, decode_s=1),
    )
    for further in range(1, request.generation.num_return_sequences):
        translation.further_sequences.add(text=text.upper() + "!" * further, score=-2.5)
    if request.generation.token_logprobs:
        token = translation.tokens.add(token_id=7, token="_HI", log_probability=-0.25)
        token.top_logprobs.add(token_id=8, token="_HO", log_probability=-1.75)
    if request.HasField("attention"):
        translation.attention.CopyFrom(_attention(text, [], ["</s>"], text.upper(), "CROSS"))
    if isinstance(request, translation_pb2.TranslateRequest):
        if request.quality:
            translation.quality.score, translation.quality.coverage, translation.quality.confidence = 0.5, 0.625, 0.75
            translation.quality.warnings.append(quality_pb2.QUALITY_WARNING_UNDER_TRANSLATION)
            translation.quality.uncovered_words.add(text=text.split()[-1], start=text.rindex(" ") + 1, end=len(text))
        for place, entry in enumerate(request.glossary):
            found = text.upper().find(entry.target)
            match = translation.glossary.add(entry=place, expected=entry.target, verdict=1 if found >= 0 else 3)
            match.source.text, match.source.end = entry.source, len(entry.source)
            if found >= 0:
                match.target.text, match.target.start, match.target.end = entry.target, found, found + len(entry.target)
    return translation


def _attention(source, before, after, target, kind) -> attention_pb2.Attention:
    sources, targets = _axis(1, source, before, after), _axis(2, target, before, after)
    axes = [sources] if kind == "SELF" else [sources, targets]
    keys, queries = len(sources.segments), len(axes[-1].segments)
    weights = (np.eye(queries, keys, dtype=np.float32) * 3 + 1)[None]
    weights /= weights.sum(axis=-1, keepdims=True)
    return attention_pb2.Attention(
        granularity=attention_pb2.ATTENTION_GRANULARITY_WORD,
        axes=axes,
        maps=[
            attention_pb2.AttentionMap(
                kind=attention_pb2.AttentionKind.Value(f"ATTENTION_KIND_{kind}"),
                stack=attention_pb2.ATTENTION_STACK_DECODER
                if kind == "CROSS"
                else attention_pb2.ATTENTION_STACK_ENCODER,
                layer=layer,
                heads=range(HEADS),
                reduction=attention_pb2.ATTENTION_REDUCTION_MEAN,
                query_axis=axes[-1].axis,
                key_axis=sources.axis,
                shape=weights.shape,
                encoding=attention_pb2.ATTENTION_ENCODING_FLOAT32,
                weights=weights.astype("<f4").tobytes(),
            )
            for layer in range(LAYERS)
        ],
        package_sha256="cd" * 32,
        precision="fp32",
    )


def _axis(axis, text, before, after) -> attention_pb2.Axis:
    segments, position = [], 0
    for word in text.split():
        start = text.index(word, position)
        position = start + len(word)
        segments.append(attention_pb2.Segment(text=word, start=start, end=position))
    return attention_pb2.Axis(
        axis=axis,
        segments=[
            *(attention_pb2.Segment(text=special, special=True, token_id=0) for special in before),
            *segments,
            *(attention_pb2.Segment(text=special, special=True, token_id=1) for special in after),
        ],
    )


@pytest.fixture
def server() -> Iterator[CannedServer]:
    """Run the canned server on a free port."""
    canned = CannedServer()
    canned.held.set()
    grpc_server = grpc.server(ThreadPoolExecutor(16))
    translation_pb2_grpc.add_TranslationServiceServicer_to_server(_Translation(canned), grpc_server)
    caption_pb2_grpc.add_CaptionServiceServicer_to_server(_Captioning(canned), grpc_server)
    completion_pb2_grpc.add_CompletionServiceServicer_to_server(_Completion(canned), grpc_server)
    classification_pb2_grpc.add_ClassificationServiceServicer_to_server(_Classification(canned), grpc_server)
    attribution_pb2_grpc.add_AttributionServiceServicer_to_server(_Attribution(canned), grpc_server)
    model_pb2_grpc.add_ModelServiceServicer_to_server(_Models(), grpc_server)
    canned.port = grpc_server.add_insecure_port("localhost:0")
    grpc_server.start()
    yield canned
    canned.held.set()
    grpc_server.stop(None).wait()

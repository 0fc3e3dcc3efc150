"""Answers made by hand, with the inputs that they answer: what a report is made of."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image, ImageDraw

from regard.answers import (
    AnsweredQuestion,
    AnswerSpan,
    Attention,
    AttentionMap,
    Caption,
    Classification,
    ClassProbability,
    Completion,
    Entity,
    ModelVersion,
    PatchGrid,
    Segment,
    Timing,
    TokenClassification,
    Translation,
)

LAYERS, HEADS = 2, 3
PACKAGE = "c0ffee" + "0" * 58
_TIMING = Timing(queue_s=0.0, encode_s=0.0, decode_s=0.0)


def words(text: str, *, before: Sequence[str] = (), after: Sequence[str] = ()) -> tuple[Segment, ...]:
    """Return the words of a text between special tokens."""
    found, end = [Segment(token, 0, 0, True, 0) for token in before], 0
    for word in text.split():
        start = text.index(word, end)
        end = start + len(word)
        found.append(Segment(word, start, end, False, None))
    return (*found, *(Segment(token, end, end, True, 1) for token in after))


def weights(queries: int, keys: int, seed: int, *, heads: int = HEADS) -> np.ndarray:
    """Return float32 [heads, queries, keys] of which every row sums to 1."""
    scores = np.random.default_rng(seed).normal(0, 2, (heads, queries, keys))
    shares = np.exp(scores)
    return (shares / shares.sum(axis=-1, keepdims=True)).astype(np.float32)


def layers_of(kind, stack, queries, keys, *, seed=0, layers=LAYERS, heads=HEADS, **grids) -> list[AttentionMap]:
    """Return a map for each layer between two axes, each given as its name and its segments."""
    return [
        AttentionMap(
            kind=kind,
            stack=stack,
            layer=layer,
            heads=tuple(range(heads)),
            reduction="none",
            query_axis=queries[0],
            key_axis=keys[0],
            queries=queries[1],
            keys=keys[1],
            weights=weights(len(queries[1]), len(keys[1]), seed + layer, heads=heads),
            **grids,
        )
        for layer in range(layers)
    ]


def attention_of(maps: Sequence[AttentionMap]) -> Attention:
    """Return the attention of a word-by-word request."""
    return Attention(granularity="word", maps=tuple(maps), package_sha256=PACKAGE, precision="fp32")


def translation(source="the old house", output="la vieille maison", **sizes) -> tuple[str, Translation]:
    """Return a translation with its cross-attention and its encoder's and decoder's own."""
    keys, queries = ("source", words(source, after=["</s>"])), ("target", words(output, after=["</s>"]))
    fed = ("decoder_input", (Segment("<pad>", 0, 0, True, 2), *queries[1][:-1]))
    maps = [
        *layers_of("self", "encoder", keys, keys, seed=10, **sizes),
        *layers_of("self", "decoder", queries, fed, seed=20, **sizes),
        *layers_of("cross", "decoder", queries, keys, **sizes),
    ]
    return source, Translation(
        text=output,
        finish_reason="end_of_sentence",
        source_tokens=len(keys[1]),
        target_tokens=len(queries[1]),
        log_probability=-1.0,
        truncated=False,
        attention=attention_of(maps),
        timing=_TIMING,
        model=ModelVersion("en-fr", "1"),
    )


def classification(text="book a table for two", *, out_of_scope=False, **sizes) -> tuple[str, Classification]:
    """Return a classification of a text with its encoder's attention."""
    source = ("source", words(text, before=["[CLS]"], after=["[SEP]"]))
    return text, _classified(layers_of("self", "encoder", source, source, seed=30, **sizes), out_of_scope)


def token_classification(text="Sarah lives in London") -> tuple[str, TokenClassification]:
    """Return a text's entities, its first and its last word, with its encoder's attention."""
    source = ("source", words(text, before=["[CLS]"], after=["[SEP]"]))
    first, last = source[1][1], source[1][-2]
    return text, TokenClassification(
        tokens=(),
        entities=(
            Entity("PER", 0.96875, first.text, first.start, first.end),
            Entity("LOC", 0.5, last.text, last.start, last.end),
        ),
        source_tokens=len(source[1]),
        truncated=False,
        attention=attention_of(layers_of("self", "encoder", source, source, seed=60)),
        timing=_TIMING,
        model=ModelVersion("tagger", "1"),
    )


def answered_question(
    question="where is it?", context="the cat is in the house"
) -> tuple[tuple[str, str], AnsweredQuestion]:
    """Return two answers to a question, the context's last word and that there is none, and the encoder's attention."""
    behind = [replace(one, part=1) for one in words(context, after=["[SEP]"])]
    source = ("source", (*words(question, before=["[CLS]"], after=["[SEP]"]), *behind))
    last = behind[-2]
    return (question, context), AnsweredQuestion(
        answers=(AnswerSpan(last.text, 0.75, last.start, last.end), AnswerSpan("", 0.125, 0, 0)),
        null_score=0.125,
        windows=1,
        source_tokens=len(source[1]),
        attention=attention_of(layers_of("self", "encoder", source, source, seed=70)),
        timing=_TIMING,
        model=ModelVersion("reader", "1"),
    )


def completion(prompt="once upon a", output=" time there was") -> tuple[str, Completion]:
    """Return what follows a prompt, with the attention to both."""
    queries, fed = ("target", words(output)), ("decoder_input", words(prompt + output)[:-1])
    return prompt, Completion(
        text=output,
        finish_reason="length",
        prompt_tokens=len(prompt.split()),
        target_tokens=len(queries[1]),
        log_probability=-1.0,
        attention=attention_of(layers_of("self", "decoder", queries, fed, seed=80)),
        timing=_TIMING,
        model=ModelVersion("writer", "1"),
    )


def image_classification() -> tuple[bytes, Classification]:
    """Return a classification of an image, in which [CLS] and patches attend to each other."""
    source = ("source", (Segment("[CLS]", 0, 0, True, None), *patches(4, 6)))
    grid = PatchGrid(4, 6, 240, 160, 0, 0, 240, 160)
    maps = layers_of("self", "encoder", source, source, seed=40, query_grid=grid, key_grid=grid)
    return picture(240, 160), _classified(maps, out_of_scope=False)


def caption(text="a red circle above a blue square", *, crop=(0, 0, 240, 160)) -> tuple[bytes, Caption]:
    """Return a caption whose words attend to a grid of 4 by 6 patches over `crop`: left, top, width, height."""
    queries = ("target", words(text, after=["</s>"]))
    keys = ("source", (Segment("[CLS]", 0, 0, True, None), *patches(4, 6)))
    maps = layers_of("cross", "decoder", queries, keys, seed=50, key_grid=PatchGrid(4, 6, 240, 160, *crop))
    return picture(240, 160), Caption(
        text=text,
        finish_reason="end_of_sentence",
        target_tokens=len(queries[1]),
        log_probability=-1.0,
        attention=attention_of(maps),
        timing=_TIMING,
        model=ModelVersion("scenes", "1"),
    )


def patches(rows: int, columns: int) -> tuple[Segment, ...]:
    """Return the segments of a grid's patches, row by row."""
    return tuple(Segment(f"{row},{column}", 0, 0, False, None) for row in range(rows) for column in range(columns))


def picture(width: int, height: int, kind: str = "PNG", **saved) -> bytes:
    """Return the file of a picture with a red circle and a blue square."""
    image = Image.new("RGB", (width, height), (222, 216, 204))
    drawing = ImageDraw.Draw(image)
    drawing.ellipse((width * 0.1, height * 0.1, width * 0.4, height * 0.5), fill=(200, 50, 46))
    drawing.rectangle((width * 0.6, height * 0.5, width * 0.9, height * 0.9), fill=(46, 84, 200))
    written = io.BytesIO()
    image.save(written, kind, **saved)
    return written.getvalue()


def _classified(maps: Sequence[AttentionMap], out_of_scope: bool) -> Classification:
    return Classification(
        classes=(ClassProbability("restaurant_reservation", 3, 0.75), ClassProbability("travel_alert", 1, 0.125)),
        out_of_scope=out_of_scope,
        source_tokens=len(maps[0].keys),
        truncated=False,
        attention=attention_of(maps),
        timing=_TIMING,
        model=ModelVersion("intent", "1"),
    )

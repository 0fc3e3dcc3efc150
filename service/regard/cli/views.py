"""What of an answer's attention is drawn, and the caption that says so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from regard.cli.drawing import AlignmentGrid, Bars, HighlightedText, Label, captioned, percent
from regard.cli.pictures import HeatStrip
from regard.client import (
    Alignment,
    Attention,
    AttentionMap,
    AttentionRow,
    Caption,
    Classification,
    Completion,
    GlossaryMatch,
    Quality,
    Segment,
    TokenDelta,
    Transcription,
    Translation,
    patch_weights,
)

_VERDICTS = {"kept": "green", "unlinked": "yellow", "missing": "bold yellow"}
_TOKEN_CELLS = 14
_MOST_ATTENDED = 3
_SPACE_MARK = "▁"
_SPANS = 16
"""The most columns that the time of a sound is drawn in."""


def text_view(answer: Translation | Completion, *, every_layer: bool) -> RenderableType:
    """Draw each map of the last layer, or of every layer, with target words as rows and what they saw as columns."""
    attention = answer.attention
    if attention is None:
        return Text(answer.text)
    drawings: list[RenderableType] = []
    for one in _chosen(attention, every_layer=every_layer):
        for place, weights in enumerate(one.shares()):
            grid = AlignmentGrid(_labels(one.queries), _labels(one.keys), weights)
            caption = f"% of each {attention.granularity}'s {one.kind}-attention · {_origin(one, place)}"
            drawings.append(captioned(answer.text, grid, caption))
    return _spaced(drawings)


class TokenLines:
    """Lines of a stream's tokens: what each adds to the text, the source tokens that it attends to most, its mark.

    A line comes once its token's rows have: those of alignment heads may come with the token after.
    """

    def __init__(self) -> None:
        self._source: tuple[Segment, ...] = ()
        self._waiting: dict[int, TokenDelta] = {}
        self._count = 0

    def add(self, delta: TokenDelta) -> Iterator[Text]:
        """Yield the lines that the next token settles."""
        self._source = delta.source or self._source
        self._waiting[self._count] = delta
        self._count += 1
        for query in sorted({row.query for row in delta.attention} & self._waiting.keys()):
            rows = [row for row in delta.attention if row.query == query]
            yield self._line(self._waiting.pop(query), rows)

    def finish(self) -> Iterator[Text]:
        """Yield the lines of tokens without rows."""
        for delta in self._waiting.values():
            yield self._line(delta, ())
        self._waiting.clear()

    def _line(self, delta: TokenDelta, settled: Sequence[AttentionRow]) -> Text:
        line = Text(f"{delta.text.strip() or '·':<{_TOKEN_CELLS}}")
        rows = [row.shares() for row in settled if row.key_axis == "source"]
        if rows and self._source:
            weights = np.concatenate(rows).mean(axis=0)
            for place in np.argsort(-weights, kind="stable")[:_MOST_ATTENDED]:
                segment = self._source[int(place)]
                line.append(f"  {segment.text.replace(_SPACE_MARK, '')} ", "dim" if segment.special else "")
                line.append(percent(float(weights[place])), "dim")
        if delta.safe_to_emit is False:
            line.append("  waits for more", "yellow")
        return line


def alignment_view(alignment: Alignment) -> RenderableType:
    """Draw each target word with its probability and the source words that it is linked to, by the links' weights."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for word, confidence in zip(alignment.target_words, alignment.target_confidence, strict=True):
        links = [link for link in alignment.links if link.target == word]
        sources = ", ".join(f"{link.source.text} {percent(link.weight)}" for link in links)
        table.add_row(Text(word.text), Text(percent(confidence), "dim"), Text(sources or "–", "" if links else "dim"))
    caption = "each word, its probability in %, and the source words that it translates, with the weight in %"
    return Group(table, Text(caption, "dim"))


def quality_view(quality: Quality) -> RenderableType:
    """Draw the score and the warnings, and below them the figures that they come from."""
    warnings = ", ".join(warning.replace("_", "-") for warning in quality.warnings)
    words = ", ".join(word.text for word in quality.uncovered_words)
    told = Text.assemble(
        ("quality ", "bold"),
        f"{quality.score:.2f}  ",
        (warnings, "bold yellow") if warnings else ("no warnings", "green"),
        f"  perhaps left out: {words}" if words else "",
    )
    figures = (
        f"coverage {percent(quality.coverage)}, confidence {percent(quality.confidence)}, "
        f"repetition {percent(quality.repetition)} (in %)"
    )
    return Group(told, Text(figures, "dim"))


def glossary_view(matches: Sequence[GlossaryMatch]) -> RenderableType:
    """Draw a line for each occurrence of a source term: what stands in its place, and whether that was expected."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for match in matches:
        found = match.target.text if match.target else " ".join(word.text for word in match.linked_words) or "–"
        expected = "" if match.verdict == "kept" else f"expected: {match.expected}"
        verdict = Text(match.verdict, _VERDICTS.get(match.verdict, ""))
        table.add_row(Text(match.source.text), Text(found), verdict, Text(expected, "dim"))
    return Group(table, Text("each term of the glossary, what stands in its place, and whether it is right", "dim"))


def caption_view(caption: Caption, picture: bytes, *, every_layer: bool) -> RenderableType:
    """Draw, for each map of the last layer or of every layer, a small picture for each word, lit where it looked."""
    attention = caption.attention
    if attention is None:
        return Text(caption.text)
    drawings: list[RenderableType] = []
    for one in _chosen(attention, every_layer=every_layer):
        if one.key_grid is None:
            continue
        words = [place for place, query in enumerate(one.queries) if not query.special]
        labels = [_labels(one.queries)[place] for place in words]
        for place in range(len(one.weights)):
            maps = [patch_weights(one, word, place) for word in words]
            below = (
                f"where each {attention.granularity} looked: its largest weight is brightest · {_origin(one, place)}"
            )
            drawings.append(captioned(caption.text, HeatStrip(picture, _part_of(one), labels, maps), below))
    return _spaced(drawings)


def transcription_view(transcription: Transcription, *, every_layer: bool) -> RenderableType:
    """Draw, for each map of each window, words as rows and spans of time as columns, which sum what is in them."""
    drawings: list[RenderableType] = []
    for window in transcription.windows:
        if window.attention is None:
            continue
        for one in _chosen(window.attention, every_layer=every_layer):
            if one.key_frames is None or one.query_frames is not None:
                continue
            words = [place for place, query in enumerate(one.queries) if not query.special]
            labels = [_labels(one.queries)[place] for place in words]
            spoken = sum(not key.special for key in one.keys)
            starts = range(0, spoken, -(-spoken // _SPANS))
            spans = [Label(one.keys[start].text) for start in starts]
            for place, weights in enumerate(one.shares()):
                summed = np.add.reduceat(weights[words, :spoken], list(starts), axis=1)
                below = f"% of each {window.attention.granularity}'s attention from each second on · "
                grid = AlignmentGrid(labels, spans, summed)
                drawings.append(captioned(window.text.strip(), grid, below + _origin(one, place)))
    return _spaced(drawings)


def classification_view(
    classification: Classification, picture: bytes | None = None, *, every_layer: bool
) -> RenderableType:
    """Draw the words, or the picture, by the weights that the first token, [CLS], gives, and the classes as bars."""
    drawings: list[RenderableType] = []
    if classification.attention is not None:
        for one in _chosen(classification.attention, every_layer=every_layer):
            if picture is None:
                for place, weights in enumerate(one.shares()):
                    drawings.append(_highlighted(one, weights[0].tolist(), _origin(one, place)))
            elif one.key_grid is not None:
                drawings.append(_lit(one, picture))
    return _spaced([*drawings, class_bars(classification)])


def highlighted_view(attention: Attention, *, every_layer: bool) -> RenderableType:
    """Draw the words by the weight that the first token, such as [CLS], gives them."""
    return _spaced(
        [
            _highlighted(one, weights[0].tolist(), _origin(one, place))
            for one in _chosen(attention, every_layer=every_layer)
            for place, weights in enumerate(one.shares())
        ]
    )


def class_bars(classification: Classification) -> RenderableType:
    """Draw the likeliest classes as bars, and say if the input is outside them."""
    classes = classification.classes
    bars = Bars([one.label for one in classes], [one.probability for one in classes])
    return Group(bars, Text("out of scope", style="bold yellow")) if classification.out_of_scope else bars


def _lit(one: AttentionMap, picture: bytes) -> RenderableType:
    """Draw a small picture for each head, lit where the first token looked; or all patches, if none comes before."""
    leads, several = one.queries[0].special, len(one.weights) > 1
    whose = one.queries[0].text if leads else "all patches"
    queries, heads = range(1 if leads else len(one.queries)), range(len(one.weights))
    maps = [np.mean([patch_weights(one, query, head) for query in queries], axis=0) for head in heads]
    labels = [Label(_heads(one, head) if several else whose) for head in heads]
    origin = f"{one.stack} layer {one.layer}{_times(one)}" if several else _origin(one, 0)
    below = Text(f"where {whose} looked: its largest weight is brightest · {origin}", "dim")
    return Group(HeatStrip(picture, _part_of(one), labels, maps), below)


def _part_of(one: AttentionMap) -> tuple[float, float, float, float]:
    """Return the part of an image that the keys of a map cover: left, top, right and bottom edge."""
    grid = one.key_grid
    assert grid is not None
    return grid.left, grid.top, grid.left + grid.width, grid.top + grid.height


def _highlighted(one: AttentionMap, weights: Sequence[float], origin: str) -> RenderableType:
    weighed = list(zip(_labels(one.keys), weights, strict=True))
    words = [(key, weight) for key, weight in weighed if not key.special]
    specials = ", ".join(f"{key.text} {percent(weight)}" for key, weight in weighed if key.special)
    beside = f"; {specials}" if specials else ""
    return Group(
        HighlightedText([key for key, _ in words], [weight for _, weight in words]),
        Text(f"% of {one.queries[0].text}'s attention{beside} · {origin}", "dim"),
    )


def _chosen(attention: Attention, *, every_layer: bool) -> list[AttentionMap]:
    """Return the maps of every layer, or of the last that each stack has of each kind."""
    last: dict[tuple[str, str], int] = {}
    for one in attention.maps:
        last[one.stack, one.kind] = max(one.layer, last.get((one.stack, one.kind), 0))
    return [one for one in attention.maps if every_layer or one.layer == last[one.stack, one.kind]]


def _origin(one: AttentionMap, place: int) -> str:
    if one.reduction == "alignment_heads":  # of several layers
        return f"{one.stack}, mean of the alignment heads{_times(one)}"
    return f"{one.stack} layer {one.layer}, {_heads(one, place)}{_times(one)}"


def _times(one: AttentionMap) -> str:
    return "" if one.weighting == "none" else ", times value norms"


def _heads(one: AttentionMap, place: int) -> str:
    if one.reduction == "none":
        return f"head {one.heads[place]}"
    if one.reduction == "rollout":
        return f"rollout of head {one.heads[0]}" if len(one.heads) == 1 else f"rollout of {len(one.heads)} heads"
    return f"{one.reduction} of {len(one.heads)} heads" if len(one.heads) > 1 else f"head {one.heads[0]}"


def _labels(segments: Sequence[Segment]) -> list[Label]:
    return [Label(segment.text, segment.special) for segment in segments]


def _spaced(drawings: Sequence[RenderableType]) -> Group:
    return Group(*(part for drawing in drawings for part in (drawing, Text())))

"""Attributions in a terminal: what is for an answer and what is against it, and how faithful each method is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from regard.cli.drawing import AlignmentGrid, Bars, HighlightedText, Label, Weights, captioned, percent, signed_percent
from regard.cli.pictures import HeatStrip
from regard.client import Attributions, ClassAttribution, Faithfulness, OutputAttribution, Segment

ERASING = ("leave_one_out", "occlusion")
"""The methods that take parts away: their weights have a sign."""
_BELOW_A_WORD = {
    "leave_one_out": "how much less log-probability the row's word has without the column's",
    "occlusion": "how much less log-probability the row's word has where {cover} covers the column's and the next",
    "last_layer": "% of the row's cross-attention, in the decoder's last layer",
    "rollout": "% of the row that comes from the column, through all layers",
    "alignment_heads": "% of the row's cross-attention, in the heads that tell what translates what",
    "value_norm": "% of what the row takes from the text, by value norms, in the decoder's last layer",
}
"""What the figures of a translation are, below the grid of each method."""
_MEASURES = {
    "deletion_auc": ("deletion ↓", min),
    "insertion_auc": ("insertion ↑", max),
    "comprehensiveness": ("comprehensiveness ↑", max),
    "sufficiency": ("sufficiency ↓", min),
}
"""For each measure of faithfulness its heading, and which of several is the most faithful."""


def class_view(attribution: ClassAttribution, picture: bytes | None) -> RenderableType:
    """Draw what every method says that the words, or the patches of a picture, are worth to the class."""
    explained, likeliest = attribution.explained, attribution.likeliest
    shown = [explained] if explained.index == likeliest.index else [explained, likeliest]
    told = attribution.attributions
    return Group(
        Bars([one.label for one in shown], [one.probability for one in shown]),
        Text(),
        *(_words(told, "of the class' probability") if picture is None else _pictures(told, picture)),
        *heads_view(told, _points, "% of the class' probability"),
        *faithfulness_view(told),
    )


def translation_view(attribution: OutputAttribution) -> RenderableType:
    """Draw a grid for each method: what each word of the text, a column, is worth to each word of the translation."""
    told = attribution.attributions
    rows, columns = _labels(attribution.targets), _labels(told.parts)
    drawn: list[RenderableType] = [_likelihood(attribution)]
    for one in told.methods:
        assert one.target_weights is not None
        erasing = one.method in ERASING
        weights = _shares(one.method, one.target_weights)
        grid = AlignmentGrid(rows, columns, weights, _nats if erasing else percent)
        drawn += [captioned(words_of(one.method), grid, _BELOW_A_WORD[one.method].format(cover=told.cover)), Text()]
    return Group(
        *drawn, *heads_view(told, _signed_nats, "log-probability of the translation"), *faithfulness_view(told)
    )


def caption_view(attribution: OutputAttribution, picture: bytes) -> RenderableType:
    """Draw, for each method, a small picture for each word of the caption, lit where the patches are worth most."""
    told = attribution.attributions
    words = [place for place, word in enumerate(attribution.targets) if not word.special]
    labels = [_labels(attribution.targets)[place] for place in words]
    drawn: list[RenderableType] = [_likelihood(attribution)]
    for one in told.methods:
        assert one.target_weights is not None
        strip = _strip(told, picture, labels, one.target_weights[words])
        drawn += [captioned(words_of(one.method), strip, "lit where the picture speaks for the word"), Text()]
    heads = heads_view(told, _signed_nats, "log-probability of the caption")
    return Group(*drawn, *heads, *faithfulness_view(told))


def heads_view(told: Attributions, figure: Callable[[float], str], of_what: str) -> Iterator[RenderableType]:
    """Yield a grid of layers and heads for each kind of attention in each stack, if heads were knocked out.

    All of them are shaded alike.
    """
    if told.heads is None:
        return
    most = max(float(np.abs(one.weights).max(initial=0.0)) for one in told.heads.maps)
    for one in told.heads.maps:
        rows = [Label(f"layer {layer}") for layer in one.layers]
        columns = [Label(str(head)) for head in range(one.weights.shape[1])]
        grid = AlignmentGrid(rows, columns, one.weights, figure, every=True, most=most)
        title = f"head knock-out: {words_of(one.stack)}, {one.kind}-attention"
        yield captioned(title, grid, f"{of_what} that is lost without the row's layer's column's head")
        yield Text()


def faithfulness_view(told: Attributions) -> Iterator[RenderableType]:
    """Yield how faithful each method is, and the heads' order by itself, if that was asked for."""
    if told.random is not None:
        measured = {words_of(one.method): one.faithfulness for one in told.methods if one.faithfulness}
        yield _faithfulness("how faithful", measured, told.random)
    if told.heads is not None and told.heads.faithfulness and told.heads.random:
        yield _faithfulness("how faithful", {"head knock-out": told.heads.faithfulness}, told.heads.random)
    if told.random is not None or (told.heads is not None and told.heads.random is not None):
        yield Text(f"↑ the higher the better, ↓ the lower · {told.runs} runs of the model", "dim")


def _faithfulness(title: str, measured: Mapping[str, Faithfulness], random: Faithfulness) -> Table:
    """Return a table of how faithful orders are, with the best of each measure bright, and chance below."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column(title, no_wrap=True)
    for heading, _ in _MEASURES.values():
        table.add_column(heading, justify="right", no_wrap=True)
    best = {name: choose(getattr(one, name) for one in measured.values()) for name, (_, choose) in _MEASURES.items()}
    for method, one in measured.items():
        figures = {name: getattr(one, name) for name in _MEASURES}
        table.add_row(
            method, *(Text(f"{figures[name]:.2f}", "bold" if figures[name] == best[name] else "") for name in best)
        )
    table.add_row("random order", *(f"{getattr(random, name):.2f}" for name in _MEASURES), style="dim")
    return table


def words_of(method: str) -> str:
    """Return a method's name in words."""
    return method.replace("_", " ")


def _words(told: Attributions, of_what: str) -> Iterator[RenderableType]:
    """Yield the words for each method, shaded by what they are worth."""
    labels = _labels(told.parts)
    for one in told.methods:
        figure = signed_percent if one.method in ERASING else percent
        weights = _shares(one.method, one.weights).tolist()
        below = {
            "leave_one_out": f"% {of_what} that is lost without the word",
            "occlusion": f"% {of_what} that is lost where {told.cover} covers it and its neighbours",
            "value_norm": "% of what the first token, or all, take from the words, by value norms",
        }.get(one.method, "% of the attention of the first token, or the mean of all, that goes to the word")
        yield captioned(words_of(one.method), HighlightedText(labels, weights, figure), below)
        yield Text()


def _pictures(told: Attributions, picture: bytes) -> Iterator[RenderableType]:
    """Yield a small picture for each method, side by side, lit where the patches are worth most."""
    labels = [Label(words_of(one.method)) for one in told.methods]
    yield _strip(told, picture, labels, [one.weights for one in told.methods])
    yield Text("lit where the picture speaks for the class; the largest weight is brightest", "dim")
    yield Text()


def _strip(told: Attributions, picture: bytes, labels: Sequence[Label], weights: Iterable[Weights]) -> HeatStrip:
    grid = told.grid
    assert grid is not None
    part = (grid.left, grid.top, grid.left + grid.width, grid.top + grid.height)
    return HeatStrip(picture, part, labels, [one.clip(0).reshape(grid.rows, grid.columns) for one in weights])


def _shares(method: str, weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return norms as shares of their row; what other methods say as it is."""
    if method != "value_norm":
        return weights
    total = weights.sum(axis=-1, keepdims=True)
    shares: npt.NDArray[np.float64] = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
    return shares


def _likelihood(attribution: OutputAttribution) -> Text:
    mean = math.exp(attribution.log_probability / len(attribution.tokens))
    return Text.assemble((attribution.text, "bold"), (f"  {percent(mean)} % a token, on geometric average\n", "dim"))


def _labels(segments: Sequence[Segment]) -> list[Label]:
    return [Label(segment.text, segment.special) for segment in segments]


def _nats(weight: float) -> str:
    return f"{weight:.1f}"


def _signed_nats(weight: float) -> str:
    figure = f"{weight:+.1f}"
    return "0" if figure in ("+0.0", "-0.0") else figure


def _points(weight: float) -> str:
    return _signed_nats(100 * weight)

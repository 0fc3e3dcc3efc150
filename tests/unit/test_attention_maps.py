"""Maps: the engine's weights labelled, pooled and reduced."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from regard.attention.axes import Axis, AxisName, Passage, label
from regard.attention.maps import AttentionMap, FloatArray, build, size_of
from regard.attention.selection import AttentionChoice, AttentionKind, Granularity, Reduction, Selection, select
from regard.manifest import Task
from regard.text.segment import Segment

from .packages import manifest_of

TRANSLATOR = manifest_of(Task.TRANSLATION)
BOTH = (AttentionKind.SELF, AttentionKind.CROSS)
START = Segment("<pad>", 0, 0, True, 2)
END = Segment("</s>", 9, 9, True, 0)
SOURCE = Passage(
    "don't sit", [Segment("don", 0, 3, False, 10), Segment("'t", 3, 5, False, 11), Segment("sit", 6, 9, False, 12), END]
)
TARGET = Passage(
    "le chat's",
    [
        Segment("le", 0, 2, False, 20),
        Segment("ch", 3, 5, False, 21),
        Segment("at", 5, 7, False, 22),
        Segment("'s", 7, 9, False, 23),
        END,
    ],
)


def weights_of(selection: Selection, source: int, target: int, seed: int = 3) -> dict[str, FloatArray]:
    """Return weights whose rows sum to 1, as the engine gives them, for every tap of `selection`."""
    rng = np.random.default_rng(seed)
    shapes = {"encoder.self": (source, source), "decoder.cross": (target, source), "decoder.self": (target, target)}
    taps: dict[str, FloatArray] = {}
    for tap in selection.taps:
        raw = rng.random((tap.heads, *shapes[f"{tap.stack}.{tap.kind}"])) + 0.01
        if tap.stack == "decoder" and tap.kind == "self":
            raw = np.tril(raw)
        taps[tap.name] = (raw / raw.sum(axis=-1, keepdims=True)).astype(np.float32)
    return taps


def select_all(reduction: Reduction, granularity: Granularity, heads: tuple[int, ...] = ()) -> Selection:
    """Return a selection of every tap."""
    choice = AttentionChoice(kinds=BOTH, heads=heads, reduction=reduction, granularity=granularity)
    return select(choice, TRANSLATOR)


def built(
    reduction: Reduction = Reduction.NONE, granularity: Granularity = Granularity.TOKEN, heads: tuple[int, ...] = ()
) -> tuple[dict[str, AttentionMap], dict[str, FloatArray], dict[AxisName, Axis]]:
    """Return the maps of every tap by name, and the taps and axes that they were built from."""
    selection = select_all(reduction, granularity, heads)
    taps = weights_of(selection, len(SOURCE.segments), len(TARGET.segments))
    axes = label(selection, SOURCE, TARGET, START)
    return {one.tap.name: one for one in build(selection, taps, axes)}, taps, axes


def pooled_slowly(
    weights: FloatArray, queries: Sequence[Sequence[int]], keys: Sequence[Sequence[int]]
) -> npt.NDArray[np.float64]:
    """Sum over each word's keys and average over each word's queries, one cell at a time."""
    pooled = np.zeros((len(weights), len(queries), len(keys)))
    for head in range(len(weights)):
        for q, query in enumerate(queries):
            for k, key in enumerate(keys):
                pooled[head, q, k] = sum(float(weights[head, i, j]) for i in query for j in key) / len(query)
    return pooled


def test_weights_are_exactly_the_engines() -> None:
    """Without pooling and reduction, a map is the tap's array as it is, with the axes of its kind."""
    maps, taps, _ = built()

    assert {name: (one.query_axis.value, one.key_axis.value) for name, one in maps.items()} == {
        "encoder.self.0": ("source", "source"),
        "encoder.self.1": ("source", "source"),
        "encoder.self.2": ("source", "source"),
        "decoder.self.0": ("target", "decoder_input"),
        "decoder.self.1": ("target", "decoder_input"),
        "decoder.cross.0": ("target", "source"),
        "decoder.cross.1": ("target", "source"),
    }
    for name, one in maps.items():
        assert np.array_equal(one.weights, taps[name])
        assert one.heads == tuple(range(one.tap.heads))


def test_chosen_heads_only() -> None:
    """A map holds the chosen heads, in order, and says which."""
    maps, taps, _ = built(heads=(1, 0))

    for name, one in maps.items():
        assert one.heads == (0, 1)
        assert np.array_equal(one.weights, taps[name][[0, 1]])


@pytest.mark.parametrize("reduction", [Reduction.NONE, Reduction.MEAN, Reduction.MAX])
@pytest.mark.parametrize("granularity", Granularity)
@pytest.mark.parametrize("heads", [(), (1,), (0, 1)])
def test_pooling_and_reduction_are_what_they_say(
    reduction: Reduction, granularity: Granularity, heads: tuple[int, ...]
) -> None:
    """Each cell is its words' weights, summed over keys and averaged over queries, then reduced over heads."""
    maps, taps, axes = built(reduction, granularity, heads)

    for name, one in maps.items():
        queries, keys = axes[one.query_axis], axes[one.key_axis]
        chosen = taps[name][list(heads)] if heads else taps[name]
        expected = pooled_slowly(
            chosen,
            queries.groups or [[index] for index in range(queries.tokens)],
            keys.groups or [[index] for index in range(keys.tokens)],
        )
        if reduction is Reduction.MEAN:
            expected = expected.mean(axis=0, keepdims=True)
        elif reduction is Reduction.MAX:
            expected = expected.max(axis=0, keepdims=True)
        assert one.weights.shape == expected.shape
        assert one.weights.dtype == np.float32
        assert one.weights.flags.c_contiguous
        assert np.abs(one.weights - expected).max() < 1e-6
        sums = one.weights.sum(axis=-1)
        if reduction is Reduction.MAX:
            assert (sums > 1 - 1e-5).all()
        else:
            assert np.abs(sums - 1).max() < 1e-5


def test_tokens_label_the_axes() -> None:
    """The decoder's input is its start token and then the output without its last token."""
    axes = label(select_all(Reduction.NONE, Granularity.TOKEN), SOURCE, TARGET, START)

    assert [segment.text for segment in axes[AxisName.SOURCE].segments] == ["don", "'t", "sit", "</s>"]
    assert [segment.text for segment in axes[AxisName.TARGET].segments] == ["le", "ch", "at", "'s", "</s>"]
    assert [segment.text for segment in axes[AxisName.DECODER_INPUT].segments] == ["<pad>", "le", "ch", "at", "'s"]


def test_words_label_the_axes() -> None:
    """By words, the decoder's input is its start token and then the words of the output, one token later."""
    axes = label(select_all(Reduction.NONE, Granularity.WORD), SOURCE, TARGET, START)

    assert [segment.text for segment in axes[AxisName.SOURCE].segments] == ["don't", "sit", "</s>"]
    assert axes[AxisName.SOURCE].groups == ((0, 1), (2,), (3,))
    assert [segment.text for segment in axes[AxisName.TARGET].segments] == ["le", "chat's", "</s>"]
    assert axes[AxisName.TARGET].groups == ((0,), (1, 2, 3), (4,))
    assert [segment.text for segment in axes[AxisName.DECODER_INPUT].segments] == ["<pad>", "le", "chat's"]
    assert axes[AxisName.DECODER_INPUT].groups == ((0,), (1,), (2, 3, 4))


def test_only_the_axes_in_use_are_labelled() -> None:
    """Cross attention has no axis of decoder inputs, and a classification only its source."""
    cross = select(AttentionChoice(), TRANSLATOR)
    classifier = select(AttentionChoice(), manifest_of(Task.CLASSIFICATION))

    assert label(cross, SOURCE, TARGET, START).keys() == {AxisName.SOURCE, AxisName.TARGET}
    assert label(classifier, SOURCE).keys() == {AxisName.SOURCE}


def test_words_whose_tokens_are_apart_are_pooled_all_the_same() -> None:
    """A word on both sides of a token that leaves no text still sums all of its tokens."""
    parts = [Segment("fo", 0, 2, False, 1), Segment("<unk>", 2, 2, True, 2), Segment("o", 2, 3, False, 3)]
    passage = Passage("foo", parts)
    choice = AttentionChoice(layers=(0,), granularity=Granularity.WORD)
    selection = select(choice, manifest_of(Task.CLASSIFICATION))
    taps = weights_of(selection, source=3, target=0)

    [one] = build(selection, taps, label(selection, passage))

    assert one.weights.shape == (2, 2, 2)
    assert np.abs(one.weights - pooled_slowly(taps["encoder.self.0"], [[0, 2], [1]], [[0, 2], [1]])).max() < 1e-6


def test_the_engines_arrays_stay_as_they_are() -> None:
    """Building maps does not write to the weights that came in."""
    selection = select_all(Reduction.MAX, Granularity.WORD)
    taps = weights_of(selection, len(SOURCE.segments), len(TARGET.segments))
    before = {name: weights.copy() for name, weights in taps.items()}

    build(selection, taps, label(selection, SOURCE, TARGET, START))

    assert all(np.array_equal(taps[name], before[name]) for name in taps)


def test_weights_that_do_not_fit_their_axes_are_an_error() -> None:
    """A tap of other lengths than its axes is refused rather than pooled wrongly."""
    selection = select_all(Reduction.NONE, Granularity.WORD)
    taps = weights_of(selection, len(SOURCE.segments) + 1, len(TARGET.segments))

    with pytest.raises(ValueError, match=r"encoder\.self\.0: \(4, 5, 5\) is not \(4, 4, 4\)"):
        build(selection, taps, label(selection, SOURCE, TARGET, START))


@pytest.mark.parametrize("reduction", [Reduction.NONE, Reduction.MEAN, Reduction.MAX])
@pytest.mark.parametrize("granularity", Granularity)
@pytest.mark.parametrize("heads", [(), (1,)])
def test_the_size_is_known_beforehand(reduction: Reduction, granularity: Granularity, heads: tuple[int, ...]) -> None:
    """The size told from the axes' lengths is that of the weights that are then built."""
    maps, _, axes = built(reduction, granularity, heads)
    selection = select_all(reduction, granularity, heads)

    size = size_of(selection, {name: len(axis.segments) for name, axis in axes.items()})

    assert size == sum(one.weights.nbytes for one in maps.values())

"""Maps: the engine's weights labelled, pooled and reduced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from regard.attention.axes import Axis, AxisName, Passage, label
from regard.attention.encoding import Encoding, encode
from regard.attention.maps import AttentionMap, FloatArray, build, size_of
from regard.attention.rollout import cross_rollout, rollout
from regard.attention.selection import AttentionChoice, AttentionKind, Granularity, Reduction, Selection, select
from regard.manifest import Manifest, Task
from regard.text.segment import Segment

from .packages import manifest_of

TRANSLATOR = manifest_of(Task.TRANSLATION)
BOTH = (AttentionKind.SELF, AttentionKind.CROSS)
BY_TEXT = (Granularity.TOKEN, Granularity.WORD)
Taps = dict[str, FloatArray]
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
@pytest.mark.parametrize("granularity", BY_TEXT)
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
@pytest.mark.parametrize("granularity", BY_TEXT)
@pytest.mark.parametrize("heads", [(), (1,)])
@pytest.mark.parametrize("encoding", Encoding)
@pytest.mark.parametrize("top_k", [0, 2, 4])
def test_the_size_is_known_beforehand(
    reduction: Reduction, granularity: Granularity, heads: tuple[int, ...], encoding: Encoding, top_k: int
) -> None:
    """The size told from the axes is that of the bytes that are then made, of maps whose keys are few or many."""
    maps, _, axes = built(reduction, granularity, heads)
    selection = replace(select_all(reduction, granularity, heads), encoding=encoding, top_k=top_k)

    encoded = [encode(one.weights, encoding, top_k) for one in maps.values()]

    size = sum(len(one.weights) + len(one.key_indices) + len(one.row_scales) for one in encoded)
    assert size_of(selection, axes) == size


def test_an_axis_that_is_not_known_yet_counts_as_one_element() -> None:
    """Before a text is translated, its attention comes to at least one row a head."""
    selection = select(AttentionChoice(), TRANSLATOR)

    assert size_of(selection, label(selection, SOURCE)) == 4 * (4 + 2) * len(SOURCE.segments)


def rollouts(choice: AttentionChoice, manifest: Manifest = TRANSLATOR) -> tuple[list[AttentionMap], Taps]:
    """Return the rollouts of a choice, and the taps that they were built from."""
    selection = select(choice, manifest)
    taps = weights_of(selection, len(SOURCE.segments), len(TARGET.segments))
    return build(selection, taps, label(selection, SOURCE, TARGET, START)), taps


def test_a_rollout_is_of_the_last_layer_of_each_stack() -> None:
    """Its keys are what the stack's first layer reads; across, they are followed through the whole encoder."""
    maps, taps = rollouts(AttentionChoice(kinds=BOTH, reduction=Reduction.ROLLOUT))

    assert [(one.tap.name, one.heads) for one in maps] == [
        ("encoder.self.2", (0, 1, 2, 3)),
        ("decoder.self.1", (0, 1)),
        ("decoder.cross.1", (0, 1)),
    ]
    encoder = rollout([taps[f"encoder.self.{layer}"] for layer in range(3)])
    own = [taps[f"decoder.self.{layer}"] for layer in range(2)]
    crossing = [taps[f"decoder.cross.{layer}"] for layer in range(2)]
    assert np.array_equal(maps[0].weights, encoder[-1][np.newaxis])
    assert np.array_equal(maps[1].weights, rollout(own)[-1][np.newaxis])
    assert np.array_equal(maps[2].weights, cross_rollout(own, crossing, encoder[-1])[-1][np.newaxis])


def test_layers_and_heads_of_a_rollout() -> None:
    """Layers name the maps, from whose own on all below are multiplied; of each, the chosen heads are averaged."""
    choice = AttentionChoice(kinds=(AttentionKind.SELF,), layers=(0, 2), heads=(1,), reduction=Reduction.ROLLOUT)
    maps, taps = rollouts(choice)

    encoder = rollout([taps[f"encoder.self.{layer}"][1:2] for layer in range(3)])
    assert [(one.tap.name, one.heads) for one in maps] == [
        ("encoder.self.0", (1,)),
        ("encoder.self.2", (1,)),
        ("decoder.self.0", (1,)),
    ]
    assert np.array_equal(maps[0].weights[0], encoder[0])
    assert np.array_equal(maps[1].weights[0], encoder[2])


def test_a_rollout_by_words_still_sums_to_one() -> None:
    """It is put together of tokens, and only then pooled to words."""
    choice = AttentionChoice(reduction=Reduction.ROLLOUT, granularity=Granularity.WORD)
    (one,), taps = rollouts(choice)
    (tokens,), _ = rollouts(replace(choice, granularity=Granularity.TOKEN))

    assert one.weights.shape == (1, 3, 3)
    pooled = pooled_slowly(tokens.weights, [[0], [1, 2, 3], [4]], [[0, 1], [2], [3]])
    assert np.abs(one.weights - pooled).max() < 1e-6
    assert np.abs(one.weights.sum(axis=-1) - 1).max() < 1e-5
    assert taps.keys() == {tap.name for tap in TRANSLATOR.taps}

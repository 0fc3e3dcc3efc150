"""What an attribution reads of a model's attention, within its limit."""

from __future__ import annotations

import numpy as np
import pytest

from regard.attention.axes import Passage
from regard.attention.parts import parts_of
from regard.attention.selection import Granularity
from regard.engine.request import FloatArray
from regard.errors import InvalidInputError
from regard.manifest import AlignmentHead, AlignmentSpec, Manifest, Task
from regard.rpc.attending import CrossAttention, SelfAttention
from regard.rpc.explaining import Floats, Method, Wish
from regard.text.segment import Segment

from .packages import manifest_of

LAST_LAYER, ALIGNMENT_HEADS, ROLLOUT = 2 * 5 * 10 * 4, 4 * 5 * 10 * 4, (12 * 10 * 10 + 6 * 5 * 5 + 6 * 5 * 10) * 4
"""The bytes that each method reads of ten source positions and five tokens, by the tiny translator's heads."""


def wish(*methods: Method) -> Wish:
    """Return a wish for some methods, or for all."""
    return Wish(methods, Granularity.WORD, window=1, stride=1, faithfulness=False, overlay=False)


def crossing(max_bytes: int, *methods: Method) -> CrossAttention:
    """Return what is read of the tiny translator, of whose first layer one head aligns."""
    head = AlignmentHead(layer=0, head=3, position="output")
    alignment = AlignmentSpec(heads=(head,), method="argmax", tension=0, pairs=1, silver_aer=0.5)
    manifest = manifest_of(Task.TRANSLATION).model_copy(update={"alignment": alignment})
    return CrossAttention.of(wish(*methods), manifest, 10, 5, max_bytes, "inputs[0]")


@pytest.mark.parametrize(
    ("max_bytes", "methods"),
    [
        (LAST_LAYER - 1, []),
        (LAST_LAYER, [Method.LAST_LAYER]),
        (ALIGNMENT_HEADS + LAST_LAYER - 1, [Method.LAST_LAYER]),
        (ALIGNMENT_HEADS + LAST_LAYER, [Method.LAST_LAYER, Method.ALIGNMENT_HEADS]),
        (ROLLOUT - 1, [Method.LAST_LAYER, Method.ALIGNMENT_HEADS]),
        (ROLLOUT, [Method.LAST_LAYER, Method.ALIGNMENT_HEADS, Method.ROLLOUT]),
    ],
)
def test_methods_are_those_whose_own_taps_fit_together(max_bytes: int, methods: list[Method]) -> None:
    """Each counts the layers that it reads, once for all methods, and no others."""
    assert list(crossing(max_bytes).needed) == methods


def test_a_method_that_is_named_is_refused_with_its_size_and_the_limit() -> None:
    """Neither half of the rollout is over the limit by itself."""
    with pytest.raises(
        InvalidInputError, match=r"inputs\[0\]: with rollout, .* to 6.4 KiB, .* at most 5.9 KiB"
    ) as refused:
        crossing(6000, Method.ROLLOUT)
    assert refused.value.field == "inputs[0]"
    assert crossing(6000, Method.LAST_LAYER).taps == {"decoder.cross.1"}


def test_means_over_heads_are_read_where_the_graph_gives_them() -> None:
    """They are a tap of one head, and say what the heads themselves do."""
    whole = manifest_of(Task.CLASSIFICATION)
    means = tuple(tap.model_copy(update={"heads": 1, "reduction": "mean"}) for tap in whole.taps)
    reduced = whole.model_copy(update={"reduced_taps": means})
    segments = [Segment(letter, place, place + 1, False, place) for place, letter in enumerate("abc")]
    parts = parts_of(Passage("abc", segments), Granularity.TOKEN, "inputs[0]")
    weights = np.random.default_rng(1).dirichlet(np.ones(3), (2, 2, 3)).astype(np.float32)

    def read(manifest: Manifest, taps: FloatArray) -> dict[Method, Floats]:
        attention = SelfAttention.of(wish(), manifest, 3, 2 * taps[0].nbytes, "inputs[0]")
        names = [tap.name for tap in attention.needed[Method.ROLLOUT]]
        return attention.read(dict(zip(names, taps, strict=True)), parts)

    expected, found = read(whole, weights), read(reduced, weights.mean(axis=1, keepdims=True))
    assert list(found) == list(expected) == [Method.LAST_LAYER, Method.ROLLOUT]
    for method in found:
        np.testing.assert_allclose(found[method], expected[method], rtol=1e-6)


def test_norms_are_read_of_the_last_layer_alone() -> None:
    """Where the package has them: the mean of the heads, beside what the weights say."""
    whole = manifest_of(Task.CLASSIFICATION)
    norms = tuple(tap.model_copy(update={"weighting": "value_norm"}) for tap in whole.taps)
    attention = SelfAttention.of(
        wish(Method.LAST_LAYER, Method.VALUE_NORM),
        whole.model_copy(update={"norm_taps": norms}),
        3,
        2 * 2 * 9 * 4,
        "inputs[0]",
    )
    assert attention.taps == {"encoder.self.1", "encoder.self.1.value_norm"}
    segments = [Segment(letter, place, place + 1, False, place) for place, letter in enumerate("abc")]
    parts = parts_of(Passage("abc", segments), Granularity.TOKEN, "inputs[0]")
    taps = {
        name: np.full((2, 3, 3), value, np.float32) for name, value in zip(sorted(attention.taps), (1, 5), strict=True)
    }
    found = attention.read(taps, parts)
    assert found[Method.VALUE_NORM].tolist() == [[5.0, 5.0, 5.0]]
    assert found[Method.LAST_LAYER].tolist() == [[1.0, 1.0, 1.0]]

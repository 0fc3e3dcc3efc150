"""What interventions come to: in a package, and for one source."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from regard.attention import interventions as interventions_module
from regard.attention.axes import Passage, Patches
from regard.attention.interventions import (
    MAX_BIASES,
    Action,
    Bias,
    InterventionChoice,
    KnockOut,
    LayerChange,
    LocalWindow,
    changes,
    intervene,
)
from regard.attention.places import Places, Rectangle, Source, Span, marked
from regard.attention.selection import AttentionChoice, AttentionKind, AttentionStack
from regard.errors import InvalidInputError
from regard.manifest import GraphSpec, Manifest, Task
from regard.text.segment import Segment
from regard.vision.grid import PatchGrid

from .packages import manifest_of

CAT = Passage(
    "the cat",
    [Segment("[CLS]", 0, 0, True, 2), Segment("the", 0, 3, False, 9), Segment("cat", 4, 7, False, 8)],
)
PAIR = Passage(
    "a b",
    [Segment("a", 0, 1, False, 5), Segment("b", 2, 3, False, 6), Segment("c", 0, 1, False, 7, part=1)],
    pair="c",
)
IMAGE = Patches(("[CLS]",), PatchGrid(2, 3, 48, 32, 0, 0, 48, 32))
X = -np.inf


def intervenable(task: Task = Task.CLASSIFICATION) -> Manifest:
    """Return the manifest of a package whose graphs all take interventions."""
    manifest = manifest_of(task)
    graph = GraphSpec(file="none", inputs=(), outputs=(), operators={}, optimized_operators={}, intervened_graph="twin")
    return manifest.model_copy(update={"graphs": {tap.graph: graph for tap in manifest.taps}})


def come_to(
    source: Source, *actions: Action, manifest: Manifest | None = None, max_bytes: int = 1 << 20, **layers: Any
) -> dict[str, LayerChange]:
    """Return what actions, all in the same layers and heads, come to for a source."""
    manifest = manifest or intervenable()
    choices = [
        InterventionChoice(f"interventions[{index}]", AttentionChoice(**layers), action)
        for index, action in enumerate(actions)
    ]
    return changes(intervene(choices, manifest), manifest, source, "text", max_bytes)


def banning(*, positions: tuple[int, ...] = (), **places: Any) -> Bias:
    """Return a ban of keys."""
    return Bias(X, Places("keys", positions=positions, **places))


def test_a_package_without_the_graphs_refuses_by_name() -> None:
    """The refusal says how to export them."""
    choice = InterventionChoice("interventions[0]", AttentionChoice(), KnockOut())
    manifest = intervenable()
    plain = manifest.model_copy(update={"graphs": manifest_of(Task.CLASSIFICATION).graphs})

    with pytest.raises(InvalidInputError, match=r"model tiny takes no interventions in its encoder.*--interventions"):
        intervene([choice], plain)


def test_heads_are_knocked_out_where_they_are_named() -> None:
    """Gates are 0 for the heads of the layers, and layers that nothing is done to aren't listed."""
    (change,) = come_to(CAT, KnockOut(), layers=(1,), heads=(0,)).items()

    assert change[0] == "encoder.self.1"
    assert change[1].gates.tolist() == [0, 1]
    assert change[1].biases == [None, None]


@pytest.mark.parametrize(
    ("source", "action", "expected"),
    [
        (CAT, LocalWindow(1), [[0, 0, X], [0, 0, 0], [X, 0, 0]]),
        (CAT, LocalWindow(0), [[0, X, X], [X, 0, X], [X, X, 0]]),
        (CAT, LocalWindow(0, spares_special=True), [[0, 0, 0], [0, 0, X], [0, X, 0]]),
        (CAT, banning(spans=(Span(2, 4),)), [[0, X, 0]] * 3),
        (CAT, banning(spans=(Span(2, 5),)), [[0, X, X]] * 3),
        (PAIR, banning(spans=(Span(0, 1, part=1),)), [[0, 0, X]] * 3),
        (
            CAT,
            Bias(2.5, Places("keys", positions=(0,)), Places("queries", positions=(1,))),
            [[0] * 3, [2.5, 0, 0], [0] * 3],
        ),
    ],
    ids=["window", "itself", "spared", "one token", "two tokens", "second text", "one query"],
)
def test_what_is_added_to_the_scores(source: Source, action: Action, expected: list[list[float]]) -> None:
    """Minus infinity for what must not be seen, the value for what is biased, 0 elsewhere."""
    change = come_to(source, action, heads=(1,))["encoder.self.0"]

    assert change.biases[0] is None
    assert change.biases[1] is not None
    assert change.biases[1].tolist() == expected


def test_a_window_in_an_image_is_one_in_its_grid() -> None:
    """Neighbours in row and column are seen, and what is special by all."""
    bias = come_to(IMAGE, LocalWindow(1))["encoder.self.0"].biases[0]

    assert bias is not None
    seen = np.isfinite(bias)
    assert seen[0].all() and seen[:, 0].all()
    assert seen[1].tolist() == [True, True, True, False, True, True, False]


def test_patches_are_named_by_their_place_in_the_grid() -> None:
    """A rectangle of two rows and one column is two patches, behind what leads them."""
    bias = come_to(IMAGE, banning(patches=(Rectangle(0, 2, 2, 1),)))["encoder.self.0"].biases[0]

    assert bias is not None
    assert np.flatnonzero(np.isneginf(bias[0])).tolist() == [1 + 2, 1 + 3 + 2]


def test_interventions_of_one_head_add_up_and_heads_alike_share_an_array() -> None:
    """Two biases are one sum, made once for all heads and layers that have both."""
    found = come_to(CAT, Bias(1.0, Places("a", positions=(0,))), Bias(0.5, Places("b", positions=(0, 1))))
    arrays = [bias for change in found.values() for bias in change.biases]

    assert {id(array) for array in arrays} == {id(arrays[0])}
    assert arrays[0] is not None
    assert arrays[0][2].tolist() == [1.5, 0.5, 0]


def test_across_there_is_one_row_for_all_of_the_output() -> None:
    """The steps' queries aren't known before: a ban holds for each."""
    found = come_to(CAT, banning(positions=(1,)), manifest=intervenable(Task.TRANSLATION), layers=(1,))

    assert list(found) == ["decoder.cross.1"]
    assert [bias.tolist() for bias in found["decoder.cross.1"].biases if bias is not None] == [[[0, X, 0]]] * 2


def test_a_query_that_would_lose_every_key_is_refused() -> None:
    """By a ban of all, or by a ban and a window together; the refusal names both."""
    with pytest.raises(InvalidInputError, match="position 0 of the source no key"):
        come_to(CAT, banning(positions=(0, 1, 2)))
    with pytest.raises(InvalidInputError, match=r"interventions\[0\] and interventions\[1\] would leave position 2"):
        come_to(CAT, LocalWindow(0), banning(positions=(2,)))


def test_a_decoders_own_attention_can_only_lose_heads() -> None:
    """Its keys are the output's, which nobody can name before."""
    kinds, stacks = (AttentionKind.SELF,), (AttentionStack.DECODER,)
    manifest = intervenable(Task.TRANSLATION)
    found = come_to(CAT, KnockOut(), manifest=manifest, kinds=kinds, stacks=stacks)

    assert list(found) == ["decoder.self.0", "decoder.self.1"]
    with pytest.raises(InvalidInputError, match="heads can be knocked out, and nothing else"):
        come_to(CAT, banning(positions=(0,)), manifest=manifest, kinds=kinds, stacks=stacks)


def test_more_biases_than_are_taken_are_refused_with_their_number() -> None:
    """Each combination is a number for every query and key, so there may not be any number of them."""
    choices = [
        InterventionChoice("one", AttentionChoice(kinds=kinds, stacks=stacks, layers=(layer,), heads=(head,)), action)
        for kinds, stacks, layers in (
            ((AttentionKind.SELF,), (AttentionStack.ENCODER,), 3),
            ((AttentionKind.CROSS,), (), 2),
        )
        for layer in range(layers)
        for head in range(4 if layers == 3 or layer == 0 else 2)
        for action in [banning(positions=(0,))]
    ]

    assert len(choices) == MAX_BIASES + 2
    with pytest.raises(
        InvalidInputError, match=f"in {MAX_BIASES + 2} ways, over heads and layers; at most {MAX_BIASES}"
    ):
        intervene(choices, intervenable(Task.TRANSLATION))


def test_what_is_added_may_be_so_many_bytes() -> None:
    """A float32 for every query and key of each array, or for every key across; the refusal has size and limit."""
    action = Bias(1.0, Places("a", positions=(0,)))
    heads: dict[str, Any] = {"manifest": intervenable(Task.TRANSLATION), "heads": (0,)}
    within, across = {"kinds": (AttentionKind.SELF,), "stacks": (AttentionStack.ENCODER,)}, {}

    for layers, size in ((within, 4 * 3 * 3), (across, 4 * 3)):
        assert come_to(CAT, action, max_bytes=size, **heads, **layers)
        with pytest.raises(InvalidInputError, match=f"text: .* comes to {size} bytes, and it may have {size - 1};"):
            come_to(CAT, action, max_bytes=size - 1, **heads, **layers)


def test_places_are_looked_up_once_however_many_heads_have_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """An intervention that is alone in one head and beside another in the next looks for its keys and queries once."""
    looked: list[str] = []

    def counted(places: Places, source: Source, field: str) -> np.ndarray:
        looked.append(places.field)
        return marked(places, source, field)

    monkeypatch.setattr(interventions_module, "marked", counted)
    manifest = intervenable()
    choices = [
        InterventionChoice(
            "all", AttentionChoice(), Bias(1.0, Places("keys", (Span(0, 3),)), Places("queries", (Span(4, 7),)))
        ),
        InterventionChoice("first", AttentionChoice(heads=(0,)), Bias(1.0, Places("first", positions=(0,)))),
    ]

    found = changes(intervene(choices, manifest), manifest, CAT, "text", 1 << 20)

    assert found["encoder.self.0"].biases[0] is not found["encoder.self.0"].biases[1]
    assert sorted(looked) == ["first", "keys", "queries"]

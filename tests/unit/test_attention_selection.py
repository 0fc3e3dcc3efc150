"""Selection: defaults, and what a package can't give."""

from __future__ import annotations

from dataclasses import replace

import pytest

from regard.attention.selection import (
    AttentionChoice,
    AttentionKind,
    AttentionStack,
    Granularity,
    Reduction,
    Selection,
    Weighting,
    select,
)
from regard.errors import InvalidInputError
from regard.manifest import Task

from .packages import IMAGE, TRANSLATION_TAPS, manifest_of, taps_of

TRANSLATOR = manifest_of(Task.TRANSLATION)
CLASSIFIER = manifest_of(Task.CLASSIFICATION)
SELF, CROSS = AttentionKind.SELF, AttentionKind.CROSS
ENCODER, DECODER = AttentionStack.ENCODER, AttentionStack.DECODER


def short(name: str) -> str:
    """Return a tap's name with the first letters of its stack and kind."""
    stack, kind, layer = name.split(".")
    return f"{stack[0]}.{kind[0]}.{layer}"


def names(selection: Selection) -> list[str]:
    """Return the names of the selected taps, in order."""
    return [tap.name for tap in selection.taps]


def test_a_translation_gives_cross_attention() -> None:
    """Asked for attention and nothing more, a translation gives every cross layer, head by head, by tokens."""
    selection = select(AttentionChoice(), TRANSLATOR)

    assert names(selection) == ["decoder.cross.0", "decoder.cross.1"]
    assert [selection.heads_of(tap) for tap in selection.taps] == [(0, 1, 2, 3), (0, 1)]
    assert (selection.reduction, selection.granularity) == (Reduction.NONE, Granularity.TOKEN)


def test_a_classification_gives_self_attention() -> None:
    """Asked for attention and nothing more, a classification gives every self layer."""
    assert names(select(AttentionChoice(), CLASSIFIER)) == ["encoder.self.0", "encoder.self.1"]


@pytest.mark.parametrize(
    ("choice", "selected"),
    [
        (AttentionChoice(kinds=(SELF,)), ["e.s.0", "e.s.1", "e.s.2", "d.s.0", "d.s.1"]),
        (AttentionChoice(kinds=(SELF,), stacks=(DECODER,)), ["d.s.0", "d.s.1"]),
        (AttentionChoice(kinds=(CROSS, SELF), stacks=(DECODER,)), ["d.s.0", "d.s.1", "d.c.0", "d.c.1"]),
        (AttentionChoice(kinds=(SELF,), layers=(2,)), ["e.s.2"]),
        (AttentionChoice(kinds=(SELF,), layers=(1, 0, 1)), ["e.s.0", "e.s.1", "d.s.0", "d.s.1"]),
        (AttentionChoice(kinds=(SELF, CROSS), stacks=(ENCODER, DECODER), layers=(1,)), ["e.s.1", "d.s.1", "d.c.1"]),
    ],
)
def test_kinds_stacks_and_layers_narrow_the_taps(choice: AttentionChoice, selected: list[str]) -> None:
    """What is chosen is every tap of the chosen kinds, stacks and layers, once, in the package's order."""
    assert [short(name) for name in names(select(choice, TRANSLATOR))] == selected


def test_heads_are_given_once_and_in_order() -> None:
    """Heads come out in ascending order, however they were asked for."""
    selection = select(AttentionChoice(layers=(0,), heads=(3, 1, 3)), TRANSLATOR)

    assert selection.heads == (1, 3)
    assert selection.heads_of(selection.taps[0]) == (1, 3)
    assert selection.tap_names == {"decoder.cross.0"}


def test_how_weights_are_put_together_is_kept() -> None:
    """Reduction and granularity go from the choice to the selection."""
    selection = select(AttentionChoice(reduction=Reduction.MAX, granularity=Granularity.WORD), CLASSIFIER)

    assert (selection.reduction, selection.granularity) == (Reduction.MAX, Granularity.WORD)


@pytest.mark.parametrize(
    ("task", "choice", "field", "problem"),
    [
        (
            Task.CLASSIFICATION,
            AttentionChoice(kinds=(CROSS,)),
            "attention.kinds",
            "no cross attention, only encoder self (layers 0, 1)",
        ),
        (
            Task.TRANSLATION,
            AttentionChoice(stacks=(ENCODER,)),
            "attention.stacks",
            "the encoder gives no cross attention; the model gives decoder cross (layers 0, 1)",
        ),
        (
            Task.TRANSLATION,
            AttentionChoice(kinds=(SELF, CROSS), stacks=(ENCODER,)),
            "attention.stacks",
            "the encoder gives no cross attention",
        ),
        (
            Task.CLASSIFICATION,
            AttentionChoice(stacks=(DECODER,)),
            "attention.stacks",
            "the decoder gives no self attention",
        ),
        (
            Task.TRANSLATION,
            AttentionChoice(kinds=(SELF,), layers=(0, 3)),
            "attention.layers",
            "no layer 3 in what is asked for: encoder self (layers 0 to 2), decoder self (layers 0, 1)",
        ),
        (Task.TRANSLATION, AttentionChoice(layers=(2,)), "attention.layers", "no layer 2"),
        (Task.TRANSLATION, AttentionChoice(layers=(-1,)), "attention.layers", "no layer -1"),
        (
            Task.TRANSLATION,
            AttentionChoice(layers=(0,), heads=(4,)),
            "attention.heads",
            "no head 4 in layer 0 of the decoder's cross attention; it has 0 to 3",
        ),
        (
            Task.TRANSLATION,
            AttentionChoice(heads=(2,)),
            "attention.heads",
            "no head 2 in layer 1 of the decoder's cross attention; it has 0, 1",
        ),
        (Task.CLASSIFICATION, AttentionChoice(heads=(-1,)), "attention.heads", "no head -1"),
    ],
)
def test_what_the_package_lacks_is_refused(task: Task, choice: AttentionChoice, field: str, problem: str) -> None:
    """The refusal names the field, the value and what there is instead."""
    with pytest.raises(InvalidInputError) as refusal:
        select(choice, manifest_of(task))

    assert refusal.value.field == field
    assert refusal.value.message.startswith(f"{field}: ")
    assert problem in refusal.value.message


@pytest.mark.parametrize(
    ("choice", "maps", "factors"),
    [
        (AttentionChoice(kinds=(SELF,), stacks=(ENCODER,)), ["e.s.2"], ["e.s.0", "e.s.1", "e.s.2"]),
        (AttentionChoice(kinds=(SELF,), stacks=(ENCODER,), layers=(0,)), ["e.s.0"], ["e.s.0"]),
        (AttentionChoice(kinds=(SELF,)), ["e.s.2", "d.s.1"], ["e.s.0", "e.s.1", "e.s.2", "d.s.0", "d.s.1"]),
        (AttentionChoice(layers=(0,)), ["d.c.0"], ["e.s.0", "e.s.1", "e.s.2", "d.s.0", "d.c.0"]),
    ],
)
def test_a_rollout_is_made_of_more_than_it_shows(choice: AttentionChoice, maps: list[str], factors: list[str]) -> None:
    """Every layer up to that of a map is a factor; across, every layer of the encoder as well."""
    selection = select(replace(choice, reduction=Reduction.ROLLOUT), TRANSLATOR)

    assert [short(tap.name) for tap in selection.maps] == maps
    assert [short(tap.name) for tap in selection.taps] == factors


@pytest.mark.parametrize(
    ("task", "lacking"),
    [
        (Task.TRANSLATION, "encoder.self.1"),
        (Task.TRANSLATION, "decoder.self.0"),
        (Task.CLASSIFICATION, "encoder.self.0"),
    ],
)
def test_a_rollout_of_layers_that_are_not_given_is_refused(task: Task, lacking: str) -> None:
    """A recurrent decoder, or a package that gives some layers only, can't be followed through all of them."""
    taps = tuple(tap for tap in manifest_of(task).taps if tap.name != lacking)

    with pytest.raises(InvalidInputError, match=rf"attention\.reduction: .* model tiny gives no {lacking}"):
        select(AttentionChoice(reduction=Reduction.ROLLOUT), manifest_of(task, taps=taps))


def test_the_heads_of_a_rollout_are_in_all_of_its_layers() -> None:
    """A head that the map's own layer has, but one below lacks, is refused by name."""
    taps = (*taps_of("classifier", "self", "encoder", [2, 4]),)

    with pytest.raises(InvalidInputError, match="no head 3 in layer 0"):
        select(AttentionChoice(heads=(3,), reduction=Reduction.ROLLOUT), manifest_of(Task.CLASSIFICATION, taps=taps))


def test_a_model_that_looks_at_no_image_has_no_patches() -> None:
    """The refusal names the field and the model; one that looks at images is let do it."""
    choice = AttentionChoice(granularity=Granularity.PATCH)

    with pytest.raises(InvalidInputError, match=r"attention\.granularity: model tiny looks at no image"):
        select(choice, CLASSIFIER)
    assert select(choice, manifest_of(Task.CLASSIFICATION, image=IMAGE)).granularity is Granularity.PATCH


def test_a_package_without_taps_refuses_all() -> None:
    """A package that gives no attention says so."""
    with pytest.raises(InvalidInputError, match="no self attention, only none at all"):
        select(AttentionChoice(), manifest_of(Task.CLASSIFICATION, taps=()))


def test_layers_that_are_missing_are_not_made_up() -> None:
    """A package that gives some layers only lists just these."""
    taps = taps_of("classifier", "self", "encoder", [2] * 6)[::2]

    with pytest.raises(InvalidInputError, match=r"\(layers 0, 2, 4\)"):
        select(AttentionChoice(layers=(1,)), manifest_of(Task.CLASSIFICATION, taps=taps))


def test_norms_are_chosen_as_weights_are() -> None:
    """By kinds, stacks and layers, but of taps of their own, whose heads no graph puts together."""
    norms, means = (
        tuple(tap.model_copy(update=changed) for tap in TRANSLATION_TAPS)
        for changed in ({"weighting": "value_norm"}, {"heads": 1, "reduction": "mean"})
    )
    manifest = TRANSLATOR.model_copy(update={"norm_taps": norms, "reduced_taps": means})
    choice = AttentionChoice(
        kinds=(SELF,), stacks=(ENCODER,), layers=(1,), reduction=Reduction.MEAN, weighting=Weighting.VALUE_NORM
    )

    assert select(choice, manifest).tap_names == {"encoder.self.1.value_norm"}
    assert select(replace(choice, weighting=Weighting.NONE), manifest).tap_names == {"encoder.self.1.mean"}


@pytest.mark.parametrize(
    ("choice", "problem"),
    [
        (AttentionChoice(), r"attention\.weighting: model tiny tells no value_norm, .* regard-export --value-norms"),
        (AttentionChoice(reduction=Reduction.ROLLOUT), "can't be had with the reduction rollout"),
        (AttentionChoice(reduction=Reduction.ALIGNMENT_HEADS), "can't be had with the reduction alignment_heads"),
    ],
)
def test_norms_that_can_not_be_had_are_refused(choice: AttentionChoice, problem: str) -> None:
    """Of a package without, and where weights must sum to 1."""
    with pytest.raises(InvalidInputError, match=problem):
        select(replace(choice, weighting=Weighting.VALUE_NORM), TRANSLATOR)


def test_every_tap_can_be_chosen() -> None:
    """All kinds and all layers together are all that the package has."""
    assert select(AttentionChoice(kinds=(SELF, CROSS)), TRANSLATOR).taps == TRANSLATION_TAPS
